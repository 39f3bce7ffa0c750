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
    snapshot=\$(ankh3 fetch ${args} ${name})
    # Hard links: the weights are not copied, and the cache's links to its blobs become files.
    cp -rlL "\$snapshot" ${prefix}
    rm -r hub
    """

    stub:
    prefix = task.ext.prefix ?: name.replaceAll('[^A-Za-z0-9._-]', '_')
    """
    mkdir ${prefix}
    touch ${prefix}/config.json
    """
}
