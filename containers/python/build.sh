#!/bin/sh
# Makes a slim Python image on Debian 13 from Debian's packages, for machines that reach no container registry.
# Argument: the image's name. DEBIAN_MIRROR, where set, replaces mmdebstrap's default. Needs mmdebstrap and docker.
set -eu
image=$1
if ! command -v mmdebstrap >/dev/null; then
  [ "$(id -u)" = 0 ] || { echo "python-image: mmdebstrap is not installed; sudo apt-get install mmdebstrap, then repeat" >&2; exit 2; }
  apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends mmdebstrap >/dev/null
fi
if docker image inspect "$image" >/dev/null 2>&1; then echo "python-image: $image is there"; exit; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "python-image: $image from Debian's packages (about a minute)"
# The host's CA bundle comes along: a machine without a registry often sits behind a proxy with a CA of its own.
# update-ca-certificates ran before, so the bundle is one file, and nothing rewrites it.
mmdebstrap --quiet --variant=apt --include=python3,ca-certificates,tzdata \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/' \
  --customize-hook='ln -s python3 "$1/usr/bin/python"' \
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*' \
  trixie "$folder/root.tar" ${DEBIAN_MIRROR:-}
docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' "$folder/root.tar" "$image" >/dev/null
docker image inspect --format 'python-image: {{.Size}} bytes' "$image"
