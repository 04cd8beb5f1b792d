#!/usr/bin/env bash
# All checks of the project that need a GPU, in under six minutes on a bare machine, as one table.
#
#     scripts/gpu_check.sh [--wheels DIR] [--out DIR] [--python PYTHON] [--only CHECK,CHECK=SECONDS]
#
# --wheels: a folder of wheels that are unpacked for this run alone, where packages are missing and there is no index.
# --out: where table.md, table.json and a log of each check are written (else gpu-check). No network is used, and no
# weights but those that FSMM_WEIGHTS holds: large networks get random weights, and are named so.
# --only: these checks alone, in this order, with limits of time of your own where you name some.
# Each check has a time limit and a process of its own: one that fails costs its own rows. Without a GPU the checks run in
# a small form on the processor, so that they can be tried anywhere.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=${FSMM_WHEELS:-} out=gpu-check python=${PYTHON:-python3} only=
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

# The limits in seconds add up to less than six minutes; a check that is told its limit leaves out what would not fit.
listed() {
  cat <<'END'
machine 15
arithmetic 35
memory 15
heads 35
training 30
large 60
usual 40
video 30
shared 35
tuning 30
compiled 35
END
}
chosen() {
  [ -n "$only" ] || { listed; return; }
  for one in ${only//,/ }; do
    name=${one%%=*} limit=$(listed | sed -n "s/^${one%%=*} //p")
    [ -n "$limit" ] || { echo "No check is called $name; there are" $(listed | cut -d' ' -f1)"." >&2; return 2; }
    [ "$one" = "$name" ] || limit=${one#*=}
    echo "$name $limit"
  done
}
checks=$(chosen) || exit 2

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

while read -r name limit; do
  timeout -k 5 "$limit" "$python" "$root/scripts/gpu_check.py" "$name" --out "$out" --limit "$limit" \
    </dev/null >"$out/$name.log" 2>&1
  status=$?
  [ $status -eq 0 ] || "$python" "$root/scripts/gpu_check.py" failed --check "$name" --status $status --out "$out"
  tail -n 3 "$out/$name.log" | sed "s/^/$name: /"
done <<<"$checks"
"$python" "$root/scripts/gpu_check.py" table --out "$out"
