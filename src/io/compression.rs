//! Compressed input, recognised by its first bytes and never by its name: gzip (several members,
//! bgzf), zstd, xz, bzip2.
//!
//! The codecs are used directly, because `niffler` rejects inputs of fewer than five bytes and
//! silently stops after the first of several xz streams. A truncated stream is an error in every
//! format. The blocks of bgzf are complete gzip members, so a truncated bgzf file is recognised by
//! its missing end marker.

use std::io::{self, BufRead, BufReader, Chain, Cursor, ErrorKind, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::BUFFER;

/// Bytes that decide the format: the length of the longest signature, that of bgzf inside a gzip
/// header.
const HEAD: usize = 18;

/// The empty block that ends every bgzf file (SAM specification, section 4.1.2).
const BGZF_END: [u8; 28] = [
    0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff, 0x06, 0, 0x42, 0x43, 0x02, 0, 0x1b, 0, 0x03, 0, 0,
    0, 0, 0, 0, 0, 0, 0,
];

/// The format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed, or in a format that is not supported.
    Plain,
    /// gzip, one or several members.
    Gzip,
    /// Blocked gzip of `bgzip`.
    Bgzf,
    /// Zstandard, one or several frames.
    Zstd,
    /// xz, one or several streams.
    Xz,
    /// bzip2, one or several streams.
    Bzip2,
}

impl Compression {
    /// The format that begins with these bytes.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, _, flags, ..] if flags & 4 != 0 && head.get(12..14) == Some(b"BC") => {
                Compression::Bgzf
            }
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // The second form is a skippable frame, with which pzstd begins its files.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            _ => Compression::Plain,
        }
    }
}

/// Decompresses a compressed input; other inputs stay as they are.
///
/// # Errors
/// The first bytes cannot be read, or no decoder can be created. A damaged or truncated stream
/// fails later, when it is read.
pub fn decompress(mut reader: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut head = Vec::with_capacity(HEAD);
    reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let format = Compression::of(&head);
    let whole: Chain<_, _> = Cursor::new(head).chain(reader);
    Ok(match format {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => buffered(MultiGzDecoder::new(whole)),
        Compression::Bgzf => {
            let tail = Tail {
                reader: whole,
                last: Vec::new(),
            };
            buffered(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, tail)))
        }
        Compression::Zstd => buffered(zstd::stream::read::Decoder::with_buffer(whole)?),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(u64::MAX, CONCATENATED)?;
            buffered(XzDecoder::new_stream(whole, stream))
        }
        Compression::Bzip2 => buffered(MultiBzDecoder::new(whole)),
    })
}

fn buffered(decoder: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER, decoder))
}

/// The compressed bytes of a bgzf file; the end of the file is an error where the last bytes are
/// not the end marker.
struct Tail<R> {
    reader: R,
    last: Vec<u8>,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.last != BGZF_END {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the end marker of bgzip is missing (to read the file as it is: gzip -dc FILE | ankh3 …)",
            ));
        }
        let news = &buffer[count.saturating_sub(BGZF_END.len())..count];
        let keep = BGZF_END.len() - news.len();
        self.last.drain(..self.last.len().saturating_sub(keep));
        self.last.extend_from_slice(news);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::GzBuilder;
    use flate2::write::GzEncoder;

    use super::*;

    const TEXT: &[u8] = b">P69905\nMVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHF\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bgzf_block(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzBuilder::new()
            .extra(&b"BC\x02\0\0\0"[..])
            .write(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        let mut block = encoder.finish().unwrap();
        let size = u16::try_from(block.len() - 1).unwrap();
        block[16..18].copy_from_slice(&size.to_le_bytes());
        block
    }

    fn bgzf(text: &[u8]) -> Vec<u8> {
        [bgzf_block(text), BGZF_END.to_vec()].concat()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(text, 3).unwrap()
    }

    fn xz(text: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decompress(Box::new(Cursor::new(bytes.to_vec())))?.read_to_end(&mut text)?;
        Ok(text)
    }

    type Compress = fn(&[u8]) -> Vec<u8>;
    const FORMATS: [(Compression, Compress); 5] = [
        (Compression::Gzip, gzip),
        (Compression::Bgzf, bgzf),
        (Compression::Zstd, zstd),
        (Compression::Xz, xz),
        (Compression::Bzip2, bzip2),
    ];

    #[test]
    fn every_format_is_recognised_and_read_also_in_several_members() {
        for (format, compress) in FORMATS {
            let one = compress(TEXT);
            assert_eq!(Compression::of(&one), format);
            assert_eq!(read(&one).unwrap(), TEXT, "{format:?}");
            let three = [compress(TEXT), compress(b""), compress(TEXT)].concat();
            assert_eq!(read(&three).unwrap(), TEXT.repeat(2), "{format:?}");
            let long = TEXT.repeat(5_000);
            if format != Compression::Bgzf {
                assert_eq!(read(&compress(&long)).unwrap(), long, "{format:?}");
            }
        }
        let many_blocks: Vec<u8> = (0..500)
            .flat_map(|_| bgzf_block(TEXT))
            .chain(BGZF_END)
            .collect();
        assert_eq!(read(&many_blocks).unwrap(), TEXT.repeat(500));
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        for (format, compress) in FORMATS {
            let two = [compress(TEXT), compress(TEXT)].concat();
            for cut in HEAD..two.len() {
                // Only a cut between two complete members leaves a complete file (in bgzf: after an
                // end marker).
                let whole = cut == two.len() / 2;
                assert_eq!(
                    read(&two[..cut]).is_ok(),
                    whole,
                    "{format:?} cut at {cut} of {}",
                    two.len()
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error() {
        // Without zstd, whose one-shot encoder writes no checksum.
        for (format, compress) in FORMATS
            .into_iter()
            .filter(|(format, _)| *format != Compression::Zstd)
        {
            let mut bytes = compress(TEXT);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            assert!(read(&bytes).is_err(), "{format:?}");
        }
    }

    #[test]
    fn short_and_plain_inputs_pass() {
        for text in [&b""[..], b">", b"BZ", b">a\nM", b"BZh", TEXT] {
            assert_eq!(read(text).unwrap(), text);
        }
    }
}
