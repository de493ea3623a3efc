#!/usr/bin/env bash
# Runs the benchmarks of step, memory, PyTorch, scaling and input, and keeps what each prints in
# DIR/NAME.txt, DIR being runs/benchmarks; 41 minutes on two cores:
#
#   benchmarks/run_all.sh [--out DIR] [--wheels DIR] [--python PYTHON]
#
# benchmarks.step, .compiled and .scaling need jax, flax and optax, .torch_peer also PyTorch, .input
# TensorFlow and the rest of requirements.txt; what cannot run is named and left out. All need some
# packages of pure Python besides. For a machine without a network, fetch them on another one and
# bring them along for --wheels:
#
#   pip download --no-deps --platform any --only-binary=:all: --dest wheels \
#     absl-py etils jaxtyping ml-collections wadler-lindig
set -euo pipefail
cd "$(dirname "$0")/.."

out=runs/benchmarks
wheels=
python=python3
while (($#)); do
  case $1 in
    --out) out=$2 ;;
    --wheels) wheels=$2 ;;
    --python) python=$2 ;;
    *) echo "error: unknown argument $1" >&2 && exit 2 ;;
  esac
  shift 2
done
mkdir -p "$out"

if [[ $wheels ]]; then
  "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$out/site" "$wheels"/*.whl
  export PYTHONPATH="$out/site${PYTHONPATH:+:$PYTHONPATH}"
fi
eval "$("$python" -m pcan_jax.cpu)" # of no consequence to GPUs

failed=()
skipped=()
run() { # NAME MODULE_IT_NEEDS COMMAND...
  local name=$1 needed=$2
  shift 2
  if ! "$python" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$needed'))"; then
    skipped+=("$name (no $needed)")
    return
  fi
  echo "== $name: python -m $*"
  "$python" -m "$@" 2>"$out/$name.log" | tee "$out/$name.txt" ||
    { failed+=("$name (see $out/$name.log)") && tail -n 3 "$out/$name.log" >&2; }
}

on_gpu=$("$python" -c "import jax; print(int(jax.default_backend() != 'cpu'))")
if ((on_gpu)); then
  run step jax benchmarks.step
  run remat jax benchmarks.step --configs ma52 --kinds training --dtypes bfloat16 \
    --batches 32 --remat none norms blocks --overhead_batch 0
  run torch_float32 torch benchmarks.torch_peer --batch 32
  run torch_bfloat16 torch benchmarks.torch_peer --batch 64 --dtype bfloat16
else
  run step jax benchmarks.step --configs ma52 --batches 1 2 4 --overhead_batch 2
  run demo jax benchmarks.step --configs demo --batches 4 8 16 32 --overhead_batch 16 \
    --overhead_repeats 200
  run remat jax benchmarks.step --configs ma52 --kinds training --dtypes float32 \
    --batches 2 --remat none norms blocks --overhead_batch 0
  run torch_float32 torch benchmarks.torch_peer --batch 2
fi
run memory jax benchmarks.compiled --kinds training --dtypes float32 bfloat16 \
  --remat none norms blocks
run scaling jax benchmarks.scaling
run input tensorflow benchmarks.input
cores=$("$python" -c "import os; print(os.cpu_count())")
run input_all_cores tensorflow benchmarks.input --cores "$cores"

((${#skipped[@]})) && printf 'left out: %s\n' "${skipped[@]}"
((${#failed[@]})) && printf 'failed: %s\n' "${failed[@]}" >&2 && exit 1
echo "all figures are in $out"
