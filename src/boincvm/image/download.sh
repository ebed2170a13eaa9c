# Runs as mmdebstrap's setup hook: the archive is configured in $1, nothing is in it yet.
# apt decides what belongs together, fetches what the cache lacks, and names every package
# file that it would install; nothing is installed here.
set -euf

mkdir -p "$1/var/cache/apt/archives" "$1/var/lib/apt/lists"
cp -al "$BOINCVM_ARCHIVES/." "$1/var/cache/apt/archives/" 2>/dev/null ||
    cp -a "$BOINCVM_ARCHIVES/." "$1/var/cache/apt/archives/"
cp -a "$BOINCVM_LISTS/." "$1/var/lib/apt/lists/"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"

apt-get -q update >&2
if [ -n "$BOINCVM_EXACT" ]; then
    # Exactly these, NAME:ARCHITECTURE=VERSION each: of what the archive lacks, apt names all.
    mkdir "$1/exact"
    cd "$1/exact"
    xargs apt-get -q download <"$BOINCVM_EXACT" >&2
    find "$1/exact" -name '*.deb' >"$BOINCVM_CHOSEN"
else
    # With pkgDpkgPm apt does everything but run dpkg; the hook's input is the list of files.
    choose() {
        apt-get -q --yes -oDebug::pkgDpkgPm=1 -oDebug::NoLocking=1 -oDir::Log=/dev/null \
            -oDpkg::Use-Pty=0 -oDpkg::Pre-Install-Pkgs::='cat >>"$BOINCVM_CHOSEN"' "$@" >&2
    }
    # What is spared counts as installed, in a version that is new enough for every dependency.
    for package in ${BOINCVM_SPARED:-}; do
        cat >>"$1/var/lib/dpkg/status" <<END
Package: $package
Status: install ok installed
Architecture: all
Multi-Arch: foreign
Version: 999:0
Maintainer: none
Description: none

END
    done
    # shellcheck disable=SC2086  # the names are checked, and one word each
    choose install $BOINCVM_PACKAGES
    if [ -n "$BOINCVM_WITH_RECOMMENDED" ]; then
        # apt adds what is recommended only by what it installs: the others are installed by now.
        while read -r package; do
            dpkg-deb --field "$package"
            printf 'Status: install ok installed\n\n'
        done <"$BOINCVM_CHOSEN" >>"$1/var/lib/dpkg/status"
        # shellcheck disable=SC2086
        choose --no-remove -oAPT::Install-Recommends=true install $BOINCVM_WITH_RECOMMENDED
    fi
fi

mkdir -p "$BOINCVM_LISTS.new"
find "$1/var/lib/apt/lists" -maxdepth 1 -type f ! -name lock -exec cp -a {} "$BOINCVM_LISTS.new/" \;
rm -rf "$BOINCVM_LISTS"
mv "$BOINCVM_LISTS.new" "$BOINCVM_LISTS"
while read -r package; do
    name=${package##*/}
    if [ -n "$BOINCVM_EXACT" ]; then
        # Only a file of the lock file replaces one of its name.
        digest=$(sha256sum <"$package")
        grep -qxF "${digest%% *}" "$BOINCVM_DIGESTS" || continue
    elif cmp -s "$package" "$BOINCVM_ARCHIVES/$name"; then
        continue
    fi
    cp "$package" "$BOINCVM_ARCHIVES/$name.new"
    mv "$BOINCVM_ARCHIVES/$name.new" "$BOINCVM_ARCHIVES/$name"
done <"$BOINCVM_CHOSEN"
