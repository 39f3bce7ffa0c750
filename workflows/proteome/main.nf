#!/usr/bin/env nextflow

//
// A proteome: embeddings, contacts, and a page that shows them
//

include { FASTA_EMBED_ANKH3     } from '../../nextflow/subworkflows/nf-core/fasta_embed_ankh3/main'
include { ANKH3_PREDICTCONTACTS } from '../../nextflow/modules/nf-core/ankh3/predictcontacts/main'
include { ANKH3_REPORT          } from '../../nextflow/modules/nf-core/ankh3/report/main'

workflow {
    main:
    def model = params.model in ['nano', 'ankh3-nano'] ? [] : file(params.model, checkIfExists: true, type: 'dir')
    // Results are named after their FASTA, without its endings.
    def endings = /(\.(fasta|faa|fas|fa))?(\.(gz|bgz|zst|xz|bz2))?$/
    def inputs = files(params.input, checkIfExists: true).groupBy { fasta -> fasta.name.replaceFirst(endings, '') }
    inputs.each { id, same ->
        if (same.size() > 1) {
            error("the results of ${same.join(' and ')} would all be called ${id}; rename one, or give each a run of its own")
        }
    }
    ch_fasta = channel.fromList(inputs.collect { id, same -> [[id: id], same[0]] })

    FASTA_EMBED_ANKH3(ch_fasta, model, params.shards as int, params.format)
    ch_results = FASTA_EMBED_ANKH3.out.embeddings.mix(FASTA_EMBED_ANKH3.out.sidecars)

    if (params.contacts) {
        ANKH3_PREDICTCONTACTS(ch_fasta, model, 'rr')
        ch_results = ch_results.mix(ANKH3_PREDICTCONTACTS.out.contacts, ANKH3_PREDICTCONTACTS.out.provenance)
    }

    ch_pages = ch_results
        .groupTuple()
        .map { meta, files -> [meta, files.flatten().sort { result -> result.name }] }
    ANKH3_REPORT(ch_pages)
}
