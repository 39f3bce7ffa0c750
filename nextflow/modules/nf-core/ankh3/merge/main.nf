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
        --output ${prefix}.${format} \\
        ${args} \\
        ${parts}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.${format} ${prefix}.${format}.json
    """
}
