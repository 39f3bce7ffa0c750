__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

# Hard links: the weights are not copied, and the cache's links to its blobs become files.
shell(
    "cache=$(mktemp -d {snakemake.output.model:q}.XXXXXX) && trap 'rm -rf \"$cache\"' EXIT &&"
    " snapshot=$(HF_HUB_CACHE=$cache ankh3 fetch {extra} {snakemake.params.name:q} {log}) &&"
    ' cp -rlL "$snapshot" {snakemake.output.model:q}'
)
