//! Pictures as files: PNG or SVG by the extension, the same on every machine, complete under their name or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use thiserror::Error;

use crate::io::stdio::{Content, Output};

/// The name under which the embedded font is registered; a viewer of an SVG takes its own font of that name.
pub(super) const FONT: &str = "sans-serif";

/// Where something is painted.
pub(super) type Area<B> = DrawingArea<B, Shift>;

/// Why a picture cannot be drawn.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The extension says neither.
    #[error("{}: a picture is .png or .svg", .0.display())]
    Extension(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The drawing library's words.
    #[error("{0}")]
    Drawing(String),
}

/// A file to draw to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its name.
    pub path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Png,
    Svg,
}

impl Picture {
    /// By the file's extension.
    ///
    /// # Errors
    /// Another extension than `.png` and `.svg`.
    pub fn of_path(path: &Path) -> Result<Self, PictureError> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let kind = match extension.to_str() {
            Some("png") => Kind::Png,
            Some("svg") => Kind::Svg,
            _ => return Err(PictureError::Extension(path.to_owned())),
        };
        let path = path.to_owned();
        Ok(Self { path, kind })
    }
}

/// What can be drawn.
pub trait Painting {
    /// Pixels: width and height.
    fn size(&self) -> (u32, u32);

    /// Paints on white.
    ///
    /// # Errors
    /// The drawing library's.
    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError>;
}

/// Draws into the file, which appears under its name only when it is complete.
///
/// # Errors
/// Where the file cannot be written.
pub fn draw(picture: &Picture, painting: &impl Painting) -> Result<(), PictureError> {
    let bytes = match picture.kind {
        Kind::Png => png(painting)?,
        Kind::Svg => svg(painting)?.into_bytes(),
    };
    let mut output = Output::create(&picture.path, Content::Binary)?;
    output.write_all(&bytes)?;
    Ok(output.finish()?)
}

pub(super) fn svg(painting: &impl Painting) -> Result<String, PictureError> {
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, painting.size());
    paint(&backend.into_drawing_area(), painting)?;
    Ok(text)
}

fn png(painting: &impl Painting) -> Result<Vec<u8>, PictureError> {
    let (width, height) = painting.size();
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
    paint(&backend.into_drawing_area(), painting)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(drawing)?;
    writer.write_image_data(&pixels).map_err(drawing)?;
    writer.finish().map_err(drawing)?;
    Ok(bytes)
}

fn paint<B: DrawingBackend>(area: &Area<B>, painting: &impl Painting) -> Result<(), PictureError> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| drawing("the embedded font cannot be read"))?;
    area.fill(&WHITE).map_err(drawing)?;
    painting.paint(area)?;
    area.present().map_err(drawing)
}

pub(super) fn drawing(error: impl std::fmt::Display) -> PictureError {
    PictureError::Drawing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_extensions_are_refused() {
        let error = Picture::of_path(Path::new("heat.jpg")).unwrap_err();
        assert_eq!(error.to_string(), "heat.jpg: a picture is .png or .svg");
    }
}
