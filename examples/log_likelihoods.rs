//! The log-likelihood of each residue of a protein when it is masked, and their mean.
//!
//! `cargo run --release --example log_likelihoods -- MKTAYIAKQRQISFVKSHFSRQ`

use std::io::Write;

use ankh3::Ankh3;
use ankh3::inference::EncoderDecoder;
use ankh3::inference::masked::MaskedModel;
use ankh3::inference::residues::Residues;
use ankh3::inference::score::{Masking, Scorer};
use ankh3::model::Decoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protein = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "MKTAYIAKQRQISFVKSHFSRQ".to_owned());
    let model = Ankh3::open("nano")?;
    let decoder = Decoder::load(&model.loader(), &model.checkpoint().config)?;
    let network = EncoderDecoder {
        encoder: model.encoder(),
        decoder: &decoder,
    };
    let residues = Residues::standard(model.tokenizer())?;
    let prefix = model.tokenizer().default_prefix();
    let masked = MaskedModel::new(network, model.tokenizer(), prefix, residues, 2048)?;
    let scorer = Scorer::new(masked);
    let values = scorer.log_likelihoods(&[("protein", protein.as_bytes())], Masking::Single)?;
    writeln!(std::io::stdout(), "{values:?}")?;
    Ok(())
}
