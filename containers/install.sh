#!/bin/sh
# The build stage of every image: makes /opt/venv from a lock, without what no stage needs, and its SBOM.
# Arguments: the lock, and the packages that have no wheel. PIP_INDEX_URL, where set, is the index.
set -eu
lock=$1
shift
here=$(dirname "$0")
export SSL_CERT_FILE="${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"
export DEBIAN_FRONTEND=noninteractive PIP_ROOT_USER_ACTION=ignore PIP_CERT="$SSL_CERT_FILE" UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$PIP_INDEX_URL"; else unset PIP_INDEX_URL; fi

packages=binutils
python3 -m pip --version >/dev/null 2>&1 || packages="$packages python3-pip"
if [ $# -gt 0 ]; then
  packages="$packages g++"
  [ -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || packages="$packages python3-dev"
fi
apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends $packages >/dev/null

python3 -m pip install --quiet --no-cache-dir --require-hashes --no-deps \
  --disable-pip-version-check --target /opt/uv -r "$here/../tools/uv/requirements.txt"
uv=/opt/uv/bin/uv
sources=; for package in "$@"; do sources="$sources --no-binary $package"; done
"$uv" venv --quiet --python "$(command -v python3)" /opt/venv
# Wheels only, but for what is named: no compiler decides what is in the image.
"$uv" pip sync --quiet --require-hashes --only-binary :all: $sources \
  --python /opt/venv/bin/python "$lock"

"$uv" venv --quiet --python "$(command -v python3)" /opt/sbom
"$uv" pip sync --quiet --require-hashes --python /opt/sbom/bin/python "$here/../tools/sbom/requirements.txt"
/opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file /opt/sbom.cdx.json /opt/venv/bin/python

python3 "$here/slim.py" "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
# Hash-based and unchecked: the same bytes in every build, and no look at the source at start.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true
