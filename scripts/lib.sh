# shellcheck shell=bash
# Set-up that the scripts in this folder share; sourced, never run. Callers set `set -euo pipefail`.

# What a package is recognised by where it is not a command of its own name: another command, or a file where it
# brings none. A package is missing when its mark is, so a machine that has the tool from elsewhere is left alone.
declare -A package_marks=(
  [musl-tools]=musl-gcc
  [libc6-dev]=/usr/include/stdio.h
  [binutils]=ld
  [erofs-utils]=mkfs.erofs
  [qemu-system-x86]=qemu-system-x86_64
  [busybox-static]=busybox
  [kmod]=modprobe
  [libelf-dev]=/usr/include/libelf.h
  [xz-utils]=xz
  [python3]=/usr/bin/python3
  [python3-pip]=/usr/bin/pip3
  [python3-venv]=/usr/share/doc/python3-venv
  [python3-numpy]=/usr/lib/python3/dist-packages/numpy
  [golang-go]=go
  [nodejs]=node
  [prometheus]=promtool
  [nginx-light]=/usr/sbin/nginx
  [redis-server]=/usr/bin/redis-server
  [apache2-utils]=htpasswd
  [openjdk-17-jdk-headless]=javac
)

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# is_present MARK: whether the command or file is there. Debian keeps some commands out of users' PATH.
is_present() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# confirm QUESTION: asks at the terminal; without one, the answer is no.
confirm() {
  local answer
  [ -t 0 ] || return 1
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY]* ]]
}

# install_packages ASSUME_YES PACKAGE...: installs those that are missing, after saying which. Root is not asked;
# others are asked before sudo is used, unless ASSUME_YES is 1 or CI is set.
install_packages() {
  local assume_yes=$1 package missing=() become_root=()
  shift
  for package in "$@"; do
    is_present "${package_marks[$package]:-$package}" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "Missing packages: ${missing[*]}"
  command -v apt-get >/dev/null 2>&1 ||
    fail "this script installs packages on Debian and Ubuntu only; install what gives: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "run as root: apt-get install --no-install-recommends ${missing[*]}"
    if [ "$assume_yes" != 1 ] && [ -z "${CI:-}" ]; then
      confirm "Install them with sudo apt-get?" ||
        fail "install them first (or pass --yes): sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    become_root=(sudo)
  fi
  apt_install "${become_root[@]}" -- "${missing[@]}"
  for package in "${missing[@]}"; do
    is_present "${package_marks[$package]:-$package}" ||
      fail "package $package is installed, but ${package_marks[$package]:-$package} is still not found"
  done
}

# apt_install [SUDO] -- PACKAGE...: the package lists of a fresh machine are empty or old, so a failure is tried
# once more after an update.
apt_install() {
  local become_root=()
  while [ "$1" != -- ]; do
    become_root+=("$1")
    shift
  done
  shift
  local install=("${become_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q
    --no-install-recommends "$@")
  "${install[@]}" && return 0
  say "Updating the package lists and trying again."
  "${become_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q
  "${install[@]}" || fail "apt-get could not install: $*"
}

# require_rust REPOSITORY: a Rust toolchain at least as new as the workspace's rust-version.
require_rust() {
  local wanted found
  command -v cargo >/dev/null 2>&1 || { [ -f "$HOME/.cargo/env" ] && PATH="$HOME/.cargo/bin:$PATH"; }
  command -v cargo >/dev/null 2>&1 ||
    fail "no Rust toolchain: install one with rustup (https://rustup.rs) or from the distribution, then try again"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$1/Cargo.toml")
  found=$(rustc --version | awk '{print $2}')
  [ "$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
    fail "Rust $wanted or newer is needed, this is $found: run 'rustup update stable' (https://rustup.rs)"
}

# target_directory REPOSITORY: where cargo puts what it builds.
target_directory() {
  cargo metadata --manifest-path "$1/Cargo.toml" --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# kvm_is_usable: whether /dev/kvm is KVM's (device 10:232), and this user can open it for reading and writing.
kvm_is_usable() {
  [ "$(stat -c %t:%T /dev/kvm 2>/dev/null)" = a:e8 ] && { : <>/dev/kvm; } 2>/dev/null
}

# wait_for_exit PID SECONDS: whether the child ended in time.
wait_for_exit() {
  local deadline=$((SECONDS + $2))
  while kill -0 "$1" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.05
  done
}

# kernel_packages: the packages that hold the kernel and its modules, on Debian and on Ubuntu.
kernel_packages() {
  local meta
  for meta in linux-image-cloud-amd64 linux-image-virtual; do
    apt-cache depends "$meta" 2>/dev/null |
      awk '/^ *Depends: linux-(image|modules)-[0-9]/ {print $2; if (sub("linux-image-", "linux-modules-", $2)) print $2}' |
      while read -r package; do
        if apt-cache show "$package" >/dev/null 2>&1; then printf '%s\n' "$package"; fi
      done | sort -u | grep . && return 0
  done
  return 1
}

# kernel_folder: where it is kept.
kernel_folder() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/spore/kernel"; }

# fetch_kernel FOLDER: unpacks the kernel's packages there, without installing anything.
fetch_kernel() {
  local cache=$1 packages work archive
  if ! packages=$(kernel_packages); then
    [ "$(id -u)" -eq 0 ] || fail "no kernel package is known to apt: run 'sudo apt-get update' once"
    apt-get update -q >&2
    packages=$(kernel_packages) || fail "no package linux-image-cloud-amd64 or linux-image-virtual"
  fi
  say "Fetching $(printf '%s' "$packages" | tr '\n' ' ')"
  work=$(mktemp -d "${TMPDIR:-/tmp}/spore-kernel.XXXXXX")
  mkdir "$work/packages" "$work/kernel"
  # shellcheck disable=SC2086 # one package a word
  (cd "$work/packages" && apt-get download -q $packages) >"$work/download.log" 2>&1 || {
    cat "$work/download.log" >&2
    rm -rf -- "$work"
    fail "apt-get could not download the kernel; 'apt-get update' may help"
  }
  for archive in "$work"/packages/*.deb; do dpkg -x "$archive" "$work/kernel"; done
  mkdir -p "$(dirname "$cache")"
  rm -rf -- "$cache"
  mv -T "$work/kernel" "$cache"
  rm -rf -- "$work"
}
