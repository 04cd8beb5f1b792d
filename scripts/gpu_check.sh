#!/usr/bin/env bash
# All checks of the project that need a GPU, in under six minutes on a bare machine, as one table.
#
#     scripts/gpu_check.sh [--wheels DIR] [--out DIR] [--python PYTHON]
#
# --wheels: a folder of wheels that are unpacked for this run alone, where packages are missing and there is no index.
# --out: where table.md, table.json and a log of each check are written (else gpu-check). No network is used, and no
# weights but those that FSMM_WEIGHTS holds: large networks get random weights, and are named so.
# Each check has a time limit and a process of its own: one that fails costs its own rows. Without a GPU the checks run in
# a small form on the processor, so that they can be tried anywhere.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=${FSMM_WHEELS:-} out=gpu-check python=${PYTHON:-python3}
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out/rows" "$scratch/packages" "$scratch/tmp"
out=$(cd "$out" && pwd)
ln -s "$root" "$scratch/packages/fsmm"
if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/packages" "$wheels"/*.whl \
    2>"$out/wheels.log" || for wheel in "$wheels"/*.whl; do "$python" -m zipfile -e "$wheel" "$scratch/packages"; done
fi
export PYTHONPATH="$scratch/packages${PYTHONPATH:+:$PYTHONPATH}" TMPDIR="$scratch/tmp" PYTHONUNBUFFERED=1

# The limits in seconds add up to less than six minutes; a check that is told its limit leaves out what would not fit.
while read -r name limit; do
  timeout -k 5 "$limit" "$python" "$root/scripts/gpu_check.py" "$name" --out "$out" --limit "$limit" \
    </dev/null >"$out/$name.log" 2>&1
  status=$?
  [ $status -eq 0 ] || "$python" "$root/scripts/gpu_check.py" failed --check "$name" --status $status --out "$out"
  tail -n 3 "$out/$name.log" | sed "s/^/$name: /"
done <<'END'
machine 20
arithmetic 45
memory 20
heads 45
training 30
large 60
usual 45
video 35
shared 40
END
"$python" "$root/scripts/gpu_check.py" table --out "$out"
