# Sourced by run and test: makes the virtual environment, and skips whatever is done.
#   environment core|demo|test    from deploy/locks/NAME.txt, by hash, wheels only
# PYTHON chooses the interpreter, VENV the directory.

venv=${VENV:-.venv}
said_installing=

fail() {
    printf '\nmeterhouse: %s\n' "$1" >&2
    exit 1
}

environment() {
    wanted=$1
    [ -x "$venv/bin/python" ] || make_venv
    if ! done_already "$wanted"; then
        "$venv/bin/python" -c 'import pip' 2>/dev/null ||
            "$venv/bin/python" -m ensurepip >/dev/null || fail "no pip in $venv; remove it and start again"
        install_lock "$wanted"
    fi
    mark=$(cksum <pyproject.toml)
    if [ "$mark" != "$(cat "$venv/.meterhouse-project" 2>/dev/null)" ]; then
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --no-build-isolation --no-deps --editable . || fail "the project itself did not install"
        printf '%s\n' "$mark" >"$venv/.meterhouse-project"
    fi
}

# Every smaller lock is a part of the larger ones, at the same versions.
done_already() {
    case $1 in
        core) larger="core demo test" ;;
        demo) larger="demo test" ;;
        *) larger=test ;;
    esac
    for lock in $larger; do
        [ "$(cat "$venv/.meterhouse-$lock" 2>/dev/null)" = "$(cksum <"deploy/locks/$lock.txt")" ] && return 0
    done
    return 1
}

make_venv() {
    python=$(find_python) || fail "Python 3.11 or newer is needed and was not found.
  Debian 12, Ubuntu 24.04:  apt-get install python3 python3-venv
  macOS:                    brew install python@3.12
  elsewhere:                PYTHON=/path/to/python3.12 sh deploy/run"
    check_platform "$python"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "this Python cannot make virtual environments. On Debian and Ubuntu:
  apt-get install python$version-venv"
    fi
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || fail "$python -m venv $venv did not work"
}

find_python() {
    for candidate in ${PYTHON:-python3.12 python3.13 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

check_platform() {
    case $(uname -s) in
        Linux) ;;
        Darwin)
            [ "$(uname -m)" = arm64 ] ||
                fail "on macOS an Apple processor is needed: there are no wheels for Intel any more"
            return 0
            ;;
        *) fail "Meterhouse runs on Linux and macOS; on Windows use WSL 2" ;;
    esac
    libc=$("$1" -c 'import platform; print(*platform.libc_ver())')
    case $libc in
        "glibc 2."*) ;;
        *) fail "Linux with glibc 2.28 or newer is needed (Alpine's musl has no wheels); found: ${libc:-another libc}" ;;
    esac
    [ "${libc#glibc 2.}" -ge 28 ] 2>/dev/null ||
        fail "glibc 2.28 or newer is needed (Debian 10, Ubuntu 20.04, RHEL 8); found: $libc"
}

install_lock() {
    lock=deploy/locks/$1.txt
    log=$venv/install.log
    total=$(grep -c '==' "$lock")
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --require-hashes --no-deps --only-binary :all: -r "$lock" >"$log" 2>&1 &
    pip=$!
    trap 'kill "$pip" 2>/dev/null; exit 130' INT TERM
    seconds=0
    while kill -0 "$pip" 2>/dev/null; do
        progress "$total" "$seconds"
        sleep 1
        seconds=$((seconds + 1))
    done
    trap - INT TERM
    if ! wait "$pip"; then
        tail -n 20 "$log" >&2
        fail "the packages did not install; the whole story is in $log.
  Behind a proxy or a private index, tell pip (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY) and start again."
    fi
    [ ! -t 1 ] || printf '\r%60s\r' ''
    echo "Installed $total packages in $seconds s"
    cksum <"$lock" >"$venv/.meterhouse-$1"
}

# A line that keeps moving on a terminal; elsewhere a line now and then.
progress() {
    fetched=$(grep -cE '^(Collecting|Requirement already)' "$log" || :)
    what="fetched $fetched of $1 packages"
    if grep -q '^Installing collected' "$log"; then
        what="installing $1 packages"
    fi
    if [ -t 1 ]; then
        printf '\r%s (%s s) ' "$what" "$2"
    elif [ $(($2 % 10)) -eq 0 ] || { [ "$what" = "installing $1 packages" ] && [ -z "$said_installing" ]; }; then
        [ "$what" != "installing $1 packages" ] || said_installing=yes
        echo "$what ($2 s)"
    fi
}
