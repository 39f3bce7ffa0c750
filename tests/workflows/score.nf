//
// One slow task that is killed and tried again
//

include { ANKH3_SCORE } from '../../nextflow/modules/nf-core/ankh3/score/main'

workflow {
    main:
    def fasta = file(params.input, checkIfExists: true)
    ANKH3_SCORE(channel.of([[id: 'slow'], fasta, '']), file(params.model, checkIfExists: true, type: 'dir'), [])
}
