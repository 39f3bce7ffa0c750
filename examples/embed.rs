//! Mean embeddings of proteins, one line per protein.
//!
//! `cargo run --release --example embed -- MKTAYIAKQR MLSDEDFKAVFGMTRSAFANLPLWKQ`

use std::io::Write;

use ankh3::Ankh3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proteins: Vec<String> = std::env::args().skip(1).collect();
    let model = Ankh3::open("nano")?;
    let mut out = std::io::stdout().lock();
    for (protein, embedding) in proteins.iter().zip(model.embed(&proteins)?) {
        let mean = embedding.mean();
        writeln!(
            out,
            "{protein}\t{} values, the first {:.4}",
            mean.len(),
            mean[0]
        )?;
    }
    Ok(())
}
