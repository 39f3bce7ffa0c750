//! Charts as files, PNG or SVG by the extension: the same bytes on every machine, and a file that
//! appears only when it is complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::charts::canvas::{DrawingError, Painting, drawing, pixels, svg};
use crate::io::stdio::{Content, Output};

/// Why a picture cannot be drawn.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The extension is neither `.png` nor `.svg`.
    #[error("{}: a picture is .png or .svg", .0.display())]
    Extension(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A message of the drawing library.
    #[error(transparent)]
    Drawing(#[from] DrawingError),
}

/// The file of a picture, whose format is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Path of the file.
    pub path: PathBuf,
    format: PictureFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PictureFormat {
    Png,
    Svg,
}

impl Picture {
    /// Takes the format from the file's extension.
    ///
    /// # Errors
    /// Another extension than `.png` and `.svg`.
    pub fn of_path(path: &Path) -> Result<Self, PictureError> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let format = match extension.to_str() {
            Some("png") => PictureFormat::Png,
            Some("svg") => PictureFormat::Svg,
            _ => return Err(PictureError::Extension(path.to_owned())),
        };
        let path = path.to_owned();
        Ok(Self { path, format })
    }
}

/// Draws a chart into the file.
///
/// # Errors
/// A file that cannot be written.
pub fn draw(picture: &Picture, painting: &impl Painting) -> Result<(), PictureError> {
    let bytes = match picture.format {
        PictureFormat::Png => png(painting)?,
        PictureFormat::Svg => svg(painting)?.into_bytes(),
    };
    let mut output = Output::create(&picture.path, Content::Binary)?;
    output.write_all(&bytes)?;
    Ok(output.finish()?)
}

fn png(painting: &impl Painting) -> Result<Vec<u8>, DrawingError> {
    let (width, height) = painting.size();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(drawing)?;
    writer
        .write_image_data(&pixels(painting)?)
        .map_err(drawing)?;
    writer.finish().map_err(drawing)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::charts::HeatMap;
    use super::*;

    #[test]
    fn other_extensions_are_rejected() {
        let error = Picture::of_path(Path::new("heat.jpg")).unwrap_err();
        assert_eq!(error.to_string(), "heat.jpg: a picture is .png or .svg");
    }

    #[test]
    fn the_extension_chooses_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let map = HeatMap::new("P1", b"MK", []);
        for (name, start) in [("heat.PNG", &b"\x89PNG"[..]), ("heat.svg", b"<svg")] {
            let picture = Picture::of_path(&folder.path().join(name)).unwrap();
            draw(&picture, &map).unwrap();
            let bytes = std::fs::read(&picture.path).unwrap();
            assert!(bytes.starts_with(start), "{name}");
            if name == "heat.PNG" {
                let reader = png::Decoder::new(io::Cursor::new(bytes))
                    .read_info()
                    .unwrap();
                let info = reader.info();
                assert_eq!((info.width, info.height), map.size());
            }
        }
    }
}
