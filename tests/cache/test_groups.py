"""The groups that file names of known data sets tell."""

from __future__ import annotations

import pytest

from fsmm.cache.groups import group_by_name, groups_by_name


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("HandstandPushups/v_HandStandPushups_g07_c03.avi", "HandStandPushups_g07"),
        ("v_Archery_g25_c06", "Archery_g25"),
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "April_09"),
        ("wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi", "RATRACE"),
        (
            "run/prelinger_wave_f_nm_np1_fr_goo_37.avi",
            "",
        ),  # The film's name cannot be told from the action's.
        ("a27_s8_t4", "s8"),
        ("depth/a3_s2_t1_depth.mat", "s2"),
        ("S001C002P003R002A013_rgb.avi", "P003"),
        ("dance/12.mp4", ""),
        ("cats/a_s_t.mp4", ""),
        ("", ""),
    ],
)
def test_a_name_tells_its_group(path: str, group: str) -> None:
    assert group_by_name(path) == group


def test_an_id_counts_where_the_path_tells_nothing() -> None:
    assert groups_by_name(["a1_s1_t1", "x", "v_Archery_g01_c01"], ["x.npy", "", "a2_s2_t1.avi"]) == [
        "s1",
        "",
        "s2",
    ]
