# shellcheck shell=bash
# Sourced by run_worker.sh: the environment of ds-jax on a TPU, a GPU or a CPU.
#
#   ACCEL=v5litepod-16 STORE=/mnt/ds_jax . launch/env.sh
#
#   ACCEL        accelerator as gcloud spells it (v4-8, v5litepod-16, v5p-8, v6e-8), gpu or cpu;
#                empty: jax takes what it finds
#   STORE        folder that all workers share and that outlives them, or gs://BUCKET/FOLDER: compiled
#                programs, hub files and data sets are kept there; empty: in their own places
#   XLA_PROFILE  compiler flags: empty, overlap (collectives beside compute) or multislice (overlap,
#                and gradients summed over the data center network)
#   DEBUG=1      libtpu writes what it does to /tmp/tpu_logs
#
# A variable that is set already is left as it is; compiler flags of yours come last and win.

# Sets a variable unless it is set already.
default() {
  [ -n "${!1+set}" ] || export "$1=$2"
}

default_common() {
  default PYTHONUNBUFFERED 1
  # A stalled transfer to or from a bucket is given up and tried again: below 256 B/s for 60 s.
  default TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS 60
  default TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES 256
  [ -n "${STORE:-}" ] || return 0
  # ds-jax uses a local copy of these programs, and process 0 brings new ones back. They are code
  # that is trusted: keep the store to yourself.
  default JAX_COMPILATION_CACHE_DIR "$STORE/jax_cache/${ACCEL:-any}"
  default TFDS_DATA_DIR "$STORE/tensorflow_datasets"
  case "$STORE" in
    gs://*) ;; # Hugging Face's library wants a local folder
    *) default HF_HOME "$STORE/huggingface" ;;
  esac
}

# Prints the flags of XLA_PROFILE for libtpu.
tpu_profile() {
  local fusion=--xla_tpu_enable_async_collective_fusion
  local overlap="$fusion=true ${fusion}_fuse_all_gather=true ${fusion}_multiple_steps=true \
--xla_tpu_overlap_compute_collective_tc=true --xla_enable_async_all_gather=true \
--xla_enable_async_all_reduce=true"
  case "${XLA_PROFILE:-}" in
    '') ;;
    overlap) echo "$overlap" ;;
    multislice) echo "$overlap --xla_tpu_enable_data_parallel_all_reduce_opt=true \
--xla_tpu_data_parallel_opt_different_sized_ops=true" ;;
    *)
      echo "Expected XLA_PROFILE overlap, multislice or empty, got '$XLA_PROFILE'." >&2
      return 2
      ;;
  esac
}

default_tpu() {
  local level=2 flags
  [ "${DEBUG:-0}" = 1 ] && level=0
  default TPU_STDERR_LOG_LEVEL "$level"
  default TPU_MIN_LOG_LEVEL "$level"
  flags="$(tpu_profile)" || return
  flags="$flags${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
  export LIBTPU_INIT_ARGS="${flags# }"
}

default_gpu() {
  local flags='--xla_gpu_enable_latency_hiding_scheduler=true --xla_gpu_triton_gemm_any=true'
  [ -z "${XLA_PROFILE:-}" ] || flags="$flags --xla_gpu_enable_pipelined_all_gather=true \
--xla_gpu_enable_pipelined_reduce_scatter=true --xla_gpu_enable_pipelined_all_reduce=true"
  export XLA_FLAGS="$flags${XLA_FLAGS:+ $XLA_FLAGS}"
  default XLA_PYTHON_CLIENT_MEM_FRACTION 0.9
}

default_common
case "${ACCEL:-}" in
  v[0-9]*) default_tpu ;;
  gpu) default_gpu ;;
  cpu) default JAX_PLATFORMS cpu ;;
  '') ;;
  *)
    echo "Expected ACCEL like v5litepod-16, v5p-8, gpu or cpu, got '$ACCEL'." >&2
    false
    ;;
esac
