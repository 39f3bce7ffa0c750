// Names as words of the shell. Nextflow itself quotes few characters where it links inputs, and takes names of outputs for
// patterns: a path that would be run as a command, or not be found, is refused before that.
def quoted(names) {
    return [names].flatten().collect { name ->
        def whole = name instanceof java.nio.file.Path ? name.toRealPath().toString() : "${name}".toString()
        if (whole =~ /(^|\/)-|[;$*?\[\]{}#~^\\\p{Cntrl}]/) {
            error("Nextflow cannot work with a path in which a name begins with - or contains one of ; \$ * ? [ ] { } # ~ ^ \\ or a line break; rename ${whole}")
        }
        "'" + (name instanceof java.nio.file.Path ? name.name : whole).replace("'", "'\\''") + "'"
    }.join(' ')
}

process ANKH3_FETCH {
    tag "$name"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ankh3:0.1.0"

    input:
    val name

    output:
    path "${prefix}", emit: model
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: name.replaceAll('[^A-Za-z0-9._-]', '_')
    """
    export HF_HUB_CACHE="\$PWD/hub"
    snapshot=\$(ankh3 fetch ${args} ${quoted(name)})
    # Hard links: the weights are not copied, and the cache's links to its blobs become files.
    cp -rlL "\$snapshot" ${quoted("${prefix}")}
    rm -r hub
    """

    stub:
    prefix = task.ext.prefix ?: name.replaceAll('[^A-Za-z0-9._-]', '_')
    """
    mkdir ${quoted("${prefix}")}
    touch ${quoted("${prefix}/config.json")}
    """
}
