//! The encoder-decoder's prediction of masked residues, in the form of its masked language
//! modelling.
//!
//! ```text
//! protein        M K A Y V L, masked at 1 and 4 (counted from 0)
//! encoder_input  [NLU] M <extra_id_0> A Y <extra_id_1> L </s>
//! decoder_input  <start> <extra_id_0> K <extra_id_1>        (K: the residue itself, teacher forcing)
//! asked          p(· | … <extra_id_0>), p(· | … <extra_id_0> K <extra_id_1>)
//! ```
//!
//! With one mask this is the question of the official pseudo-likelihood: decoder input
//! `<start> <extra_id_0>`.

use std::io;

use candle_core::DType;
use thiserror::Error;

use super::residues::{Residues, ResiduesError};
use super::workers::{EncoderDecoder, Replicas, Workers};
use crate::model::{DecoderSource, Packed};
use crate::sequence::MASK;
use crate::tokenizer::{Encoding, TaskPrefix, Tokenizer, TokenizerError};

/// Tokens of the decoder per mask: the sentinel of the mask, and the start token or the residue
/// before.
pub const TOKENS_PER_MASK: usize = 2;

/// Why a masked model cannot answer.
#[derive(Debug, Error)]
pub enum MaskedError {
    /// The vocabulary cannot encode the sequence.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The residues to choose among are invalid.
    #[error(transparent)]
    Residues(#[from] ResiduesError),
    /// The vocabulary has no sentinels.
    #[error(
        "the model's vocabulary has no <extra_id_0>, so it cannot be asked about masked residues; this needs a T5 with sentinels, such as Ankh"
    )]
    NoSentinel,
    /// An answer could not be stored.
    #[error("storing finished answers: {0}")]
    Keep(#[from] io::Error),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
}

/// A model that predicts masked residues, on one device or on several.
pub struct MaskedModel<'a> {
    pub(super) workers: Workers<EncoderDecoder<'a>>,
    tokenizer: &'a Tokenizer,
    prefix: TaskPrefix,
    residues: Residues,
}

/// One masked copy of a protein.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The whole protein's tokens.
    pub encoding: &'a Encoding,
    /// Masked positions of residues, from 0, ascending; at most [`MaskedModel::num_sentinels`].
    pub masked: Vec<usize>,
}

/// Log-probabilities of the allowed residues at each masked position; `None` where the network's
/// result is NaN or infinite.
pub type Answer = Option<Vec<Vec<f64>>>;

impl<'a> MaskedModel<'a> {
    /// A model that chooses among `residues`.
    ///
    /// # Errors
    /// A vocabulary without sentinels or without the prefix.
    pub fn new(
        replicas: impl Into<Replicas<EncoderDecoder<'a>>>,
        tokenizer: &'a Tokenizer,
        prefix: TaskPrefix,
        residues: Residues,
        max_batch_tokens: usize,
    ) -> Result<Self, MaskedError> {
        if tokenizer.num_sentinels() == 0 {
            return Err(MaskedError::NoSentinel);
        }
        tokenizer.encode(b"", prefix)?;
        Ok(Self {
            workers: Workers::new(replicas.into(), EncoderDecoder::device, max_batch_tokens),
            tokenizer,
            prefix,
            residues,
        })
    }

    /// The residues to choose among.
    pub fn residues(&self) -> &Residues {
        &self.residues
    }

    /// The largest number of masks per copy.
    pub fn num_sentinels(&self) -> usize {
        self.tokenizer.num_sentinels()
    }

    /// A protein's tokens.
    ///
    /// # Errors
    /// A residue that the vocabulary cannot encode.
    pub fn encode(&self, residues: &[u8]) -> Result<Encoding, TokenizerError> {
        self.tokenizer.encode(residues, self.prefix)
    }

    /// The tokens of a protein whose open sites are written as [`MASK`]. The sites in `asked`
    /// become sentinels in that order, all other open sites become unknown residues.
    pub(super) fn encode_open(
        &self,
        residues: &[u8],
        asked: &[usize],
    ) -> Result<Encoding, TokenizerError> {
        let known: Vec<u8> = residues
            .iter()
            .map(|&residue| if residue == MASK { b'A' } else { residue })
            .collect();
        let mut encoding = self.encode(&known)?;
        let unknown = self
            .tokenizer
            .residue_id(b'X')
            .unwrap_or(self.tokenizer.unk());
        let tokens = &mut encoding.token_ids[encoding.first_residue..];
        for (token, _) in tokens
            .iter_mut()
            .zip(residues)
            .filter(|(_, residue)| **residue == MASK)
        {
            *token = unknown;
        }
        self.mask(&mut encoding, asked);
        Ok(encoding)
    }

    /// Puts sentinels at `positions`, counted from `<extra_id_0>`.
    fn mask(&self, encoding: &mut Encoding, positions: &[usize]) {
        for (k, position) in positions.iter().enumerate() {
            encoding.token_ids[encoding.first_residue + position] = self.sentinel(k);
        }
    }

    pub(super) fn sentinel(&self, k: usize) -> u32 {
        self.tokenizer
            .sentinel(k)
            .expect("no copy has more masks than there are sentinels")
    }

    pub(super) fn start(&self) -> u32 {
        self.workers
            .network()
            .decoder
            .config()
            .decoder_start_token_id
    }

    /// Answers all questions, in order, batched by tokens.
    ///
    /// # Errors
    /// The network's failure.
    pub fn answer(&self, questions: &[Question<'_>]) -> Result<Vec<Answer>, MaskedError> {
        self.answer_and_keep(questions, |_, _| Ok(()))
    }

    /// [`MaskedModel::answer`], with each answer passed to `keep` when its batch is done, together
    /// with the number of its question.
    ///
    /// # Errors
    /// The network's failure, or the errors of `keep`.
    pub fn answer_and_keep(
        &self,
        questions: &[Question<'_>],
        mut keep: impl FnMut(usize, &Answer) -> io::Result<()>,
    ) -> Result<Vec<Answer>, MaskedError> {
        let tokens = |question: &Question<'_>| {
            question.encoding.token_ids.len() + TOKENS_PER_MASK * question.masked.len()
        };
        let lengths: Vec<usize> = questions.iter().map(tokens).collect();
        let mut answers = Vec::with_capacity(questions.len());
        let work =
            |stacks: &EncoderDecoder<'_>, batch| self.answer_batch(*stacks, &questions[batch]);
        self.workers.run(&lengths, work, |_, batch| {
            for answer in batch {
                keep(answers.len(), &answer)?;
                answers.push(answer);
            }
            Ok::<(), MaskedError>(())
        })?;
        Ok(answers)
    }

    fn answer_batch(
        &self,
        stacks: EncoderDecoder<'_>,
        questions: &[Question<'_>],
    ) -> candle_core::Result<Vec<Answer>> {
        let sources: Vec<Vec<u32>> = questions.iter().map(|q| self.encoder_input(q)).collect();
        let targets: Vec<Vec<u32>> = questions.iter().map(|q| self.decoder_input(q)).collect();
        let source = source(stacks, sources.iter().map(Vec::as_slice))?;
        let target = Packed::from_segments(targets.iter().map(Vec::as_slice));
        let each: Vec<usize> = (0..questions.len()).collect();
        let logits = stacks.decoder.forward(&target, &each, &source)?;
        let logits: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
        let answer = |segment: std::ops::Range<usize>| {
            // Every second position holds a sentinel, whose logits predict the masked residue.
            segment
                .skip(1)
                .step_by(2)
                .map(|row| self.residues.log_probs(&logits[row]))
                .collect()
        };
        Ok(target.segments().map(answer).collect())
    }

    fn encoder_input(&self, question: &Question<'_>) -> Vec<u32> {
        let mut encoding = question.encoding.clone();
        self.mask(&mut encoding, &question.masked);
        encoding.token_ids
    }

    /// `<start> <extra_id_0> r_0 <extra_id_1> r_1 … <extra_id_k>`.
    fn decoder_input(&self, question: &Question<'_>) -> Vec<u32> {
        let Encoding {
            token_ids,
            first_residue,
            ..
        } = question.encoding;
        let mut tokens = vec![self.start()];
        for (k, position) in question.masked.iter().enumerate() {
            if k > 0 {
                tokens.push(token_ids[first_residue + question.masked[k - 1]]);
            }
            debug_assert!(k == 0 || question.masked[k - 1] < *position);
            tokens.push(self.sentinel(k));
        }
        tokens
    }
}

/// The encoded copies in the form that the decoder reads.
pub(super) fn source<'t>(
    stacks: EncoderDecoder<'_>,
    copies: impl Iterator<Item = &'t [u32]>,
) -> candle_core::Result<DecoderSource> {
    let packed = Packed::from_segments(copies);
    let encoded = stacks.encoder.forward(&packed)?;
    stacks.decoder.source(&encoded, &packed)
}
