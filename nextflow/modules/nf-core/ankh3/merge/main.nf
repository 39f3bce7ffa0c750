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

process ANKH3_MERGE {
    tag "$meta.id"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ankh3:0.1.0"

    input:
    tuple val(meta), path(parts, stageAs: 'parts/*'), path(sidecars, stageAs: 'parts/*')
    val format

    output:
    tuple val(meta), path("${prefix}.${format}"), emit: merged
    tuple val(meta), path("${prefix}.${format}.{json,index.tsv}"), optional: true, emit: sidecars
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    ankh3 merge \\
        --output ${quoted("${prefix}.${format}")} \\
        ${args} \\
        ${quoted(parts)}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${quoted("${prefix}.${format}")} ${quoted("${prefix}.${format}.json")}
    """
}
