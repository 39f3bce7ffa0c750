#!/usr/bin/env nextflow

//
// A proteome: embeddings, contacts, and a page that shows them
//

include { FASTA_EMBED_ANKH3     } from '../../nextflow/subworkflows/nf-core/fasta_embed_ankh3/main'
include { ANKH3_PREDICTCONTACTS } from '../../nextflow/modules/nf-core/ankh3/predictcontacts/main'
include { ANKH3_REPORT          } from '../../nextflow/modules/nf-core/ankh3/report/main'

workflow {
    main:
    def model = params.model == 'nano' ? [] : file(params.model, checkIfExists: true, type: 'dir')
    ch_fasta = channel.fromPath(params.input, checkIfExists: true).map { fasta -> [[id: fasta.simpleName], fasta] }

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
