#!/usr/bin/env bash
# Prepares a TPU VM worker: uv, the store's mount, and ds_jax with libtpu in the checkout's .venv.
#
#   MOUNT=gs://my-bucket launch/setup_tpu_vm.sh            # the bucket appears as /mnt/ds_jax
#   MOUNT=10.0.0.2:/share launch/setup_tpu_vm.sh           # the same with an NFS server (Filestore)
#
# tpu_submit.sh runs it on every worker. Running it again, or twice at once, changes nothing. The
# runtime images bring Python 3.10; uv fetches a newer one. MOUNT_POINT names another folder.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

MOUNT="${MOUNT:-}"
MOUNT_POINT="${MOUNT_POINT:-/mnt/ds_jax}"
HUGEPAGES="${HUGEPAGES:-/sys/kernel/mm/transparent_hugepage/enabled}"

# A new machine may still be installing updates of its own: apt waits for them.
apt_install() {
  sudo apt-get -o DPkg::Lock::Timeout=600 --quiet update
  sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 --quiet --yes install "$@"
}

install_uv() {
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv > /dev/null || python3 -m pip install --quiet --user uv
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc
  command -v gcsfuse > /dev/null && return
  curl --fail --silent --show-error https://packages.cloud.google.com/apt/doc/apt-key.gpg \
    | sudo tee "$key" > /dev/null
  echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" \
    | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
  apt_install gcsfuse
}

# Mounts the store. What one worker writes must be seen by the others at once: no cached metadata.
# A checkpoint is a folder that gets its name when it is whole. In a bucket without folders of its own
# gcsfuse renames file by file, and by default no folder that has any.
mount_store() {
  if [ -z "$MOUNT" ] || mountpoint --quiet "$MOUNT_POINT"; then
    return
  fi
  sudo mkdir -p "$MOUNT_POINT"
  case "$MOUNT" in
    gs://*)
      install_gcsfuse
      sudo chown "$(id -u):$(id -g)" "$MOUNT_POINT"
      gcsfuse --implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 \
        --metadata-cache-negative-ttl-secs=0 "${MOUNT#gs://}" "$MOUNT_POINT"
      ;;
    *:/*)
      command -v mount.nfs > /dev/null || apt_install nfs-common
      sudo mount -t nfs -o hard "$MOUNT" "$MOUNT_POINT"
      sudo chmod 1777 "$MOUNT_POINT"
      ;;
    *) refuse "Expected MOUNT like gs://my-bucket or 10.0.0.2:/share, got '$MOUNT'." ;;
  esac
}

case "${1:-}" in
  --help | -h) print_usage "${BASH_SOURCE[0]}"; exit ;;
esac
exec 9>> "/tmp/ds_jax_setup.$(id -u).lock"
flock 9
# Large pages: transfers between host and TPU (v5e and later) are several times faster with them.
[ ! -e "$HUGEPAGES" ] || echo always | sudo tee "$HUGEPAGES" > /dev/null
mount_store
install_uv
CONSTRAINTS="$ROOT/launch/constraints-newest.txt"
install_ds_jax tpu
