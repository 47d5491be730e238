# Sourced by ./run and ./test: what a fresh Debian machine with Rust lacks.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# PostgreSQL's programs, without Debian's own cluster, which nobody here needs.
need_postgresql() {
    if compgen -G '/usr/lib/postgresql/*/bin/postgres' > /dev/null || command -v postgres > /dev/null; then return; fi
    echo "installing PostgreSQL from Debian's packages" >&2
    as_root mkdir -p /etc/postgresql-common
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf > /dev/null
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql > /dev/null
}

# A C compiler and linker, which some crates need.
need_compiler() {
    if command -v cc > /dev/null; then return; fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq build-essential > /dev/null
}

# need_cargo_tool SUBCOMMAND CRATE
need_cargo_tool() {
    if cargo "$1" --version > /dev/null 2>&1; then return; fi
    echo "installing $2 from crates.io (some minutes, once)" >&2
    cargo install --locked --quiet "$2"
}

need_rust() {
    if command -v cargo > /dev/null; then return; fi
    echo "Rust is missing: install it with rustup (https://rustup.rs), then run this again" >&2
    exit 1
}

need_rust
need_compiler
