#!/bin/sh
# Packs the console's third-party files into static/vendor: run it only to change a version, then commit the result.
# Each package is taken from the registry npm is configured for and must match the sha256 given here.
set -eu
cd "$(dirname "$0")"
out=$(cd ../.. && pwd)/static/vendor
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
mkdir -p "$out"

pack() { # name version tarball sha256
  (cd "$tmp" && npm pack --silent "$1@$2" >/dev/null 2>&1) || { echo "npm pack $1@$2 failed" >&2; exit 1; }
  echo "$4  $tmp/$3" | sha256sum -c --quiet - || { echo "$1@$2: sha256 differs" >&2; exit 1; }
}
take() { tar -xzOf "$tmp/$1" "package/$2" > "$out/$3"; }

pack @tabler/core  1.6.1  tabler-core-1.6.1.tgz   d02d679e51f6c179b21f035e154c13cdcb2ae8b18579e56ea606408ba7fc7a87
pack @tabler/icons 3.51.0 tabler-icons-3.51.0.tgz b30108713d3fa60aee862c2a133225da8e0f309be0708fe2925763ff810c766c
pack chart.js      4.6.1  chart.js-4.6.1.tgz      9345dacdf4bb4c5d40321f4b9aafab6fe676d37a534fc0bc2d17c4c4e29c4f00
pack htmx.org      2.0.11 htmx.org-2.0.11.tgz     165a2655073e9e6e55e307a7c74e8ebcdb76afb7701f9c16cfd106a13add408e

take tabler-core-1.6.1.tgz dist/css/tabler.min.css tabler.min.css
take chart.js-4.6.1.tgz    dist/chart.umd.min.js   chart.umd.min.js
take chart.js-4.6.1.tgz    LICENSE.md              chart.LICENSE
take tabler-icons-3.51.0.tgz LICENSE               tabler-icons.LICENSE
take htmx.org-2.0.11.tgz   dist/htmx.min.js        htmx.min.js
take htmx.org-2.0.11.tgz   LICENSE                 htmx.LICENSE
sed -i '/sourceMappingURL/d' "$out/chart.umd.min.js" "$out/tabler.min.css"

# one sprite of the icons named in icons.txt: <svg class="i"><use href="…/sprite.svg#NAME"/></svg>
mkdir "$tmp/icons"; tar -xzf "$tmp/tabler-icons-3.51.0.tgz" -C "$tmp/icons" package/icons/outline
{
  printf '<svg xmlns="http://www.w3.org/2000/svg">\n'
  while read -r name; do
    file="$tmp/icons/package/icons/outline/$name.svg"
    [ -f "$file" ] || { echo "no icon $name" >&2; exit 1; }
    printf '<symbol id="%s" viewBox="0 0 24 24">' "$name"
    tr '\n' ' ' < "$file" | sed -e 's/^.*<svg[^>]*>//' -e 's/<\/svg>.*$//' -e 's/<path stroke="none" d="M0 0h24v24H0z" fill="none" *\/>//' -e 's/  */ /g'
    printf '</symbol>\n'
  done < icons.txt
  printf '</svg>\n'
} > "$out/sprite.svg"
(cd "$out" && sha256sum tabler.min.css chart.umd.min.js htmx.min.js sprite.svg)
