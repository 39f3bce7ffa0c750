#!/usr/bin/env bash
# Run by conda-build in the unpacked source.
set -euo pipefail
features=()
if [[ ${variant:-cpu} == cuda ]]; then
  features=(--features cuda)
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
fi
cargo-bundle-licenses --format yaml --output THIRDPARTY.yml
cargo install --no-track --locked --root "$PREFIX" --path . "${features[@]}"
