//! Histograms and curves as SVG, drawn by `plotters`.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::ReportError;
use super::numbers::{Bins, Scale, short};

/// The name under which the embedded font is registered; a browser takes its own font of that name.
const FONT: &str = "sans-serif";
const SIZE: (u32, u32) = (460, 260);
/// The width of what names the curves.
const LEGEND: u32 = 112;
const BAR: RGBColor = RGBColor(33, 102, 172);
/// Colours of curves, told apart by colour-blind eyes too (Okabe and Ito).
const CURVES: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A named curve.
pub(super) struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// How often values of each size come.
pub(super) fn histogram(bins: &Bins, label: &str) -> Result<String, ReportError> {
    let highest = bins.counts.iter().copied().max().unwrap_or(1) as f64;
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(bins.low..bins.high(), 0.0..highest * 1.05)
            .map_err(drawing)?;
        let place = |place: &f64| bins.scale.label(*place);
        let count = |count: &f64| short(*count);
        let axis = match bins.scale {
            Scale::Linear => label.to_owned(),
            Scale::Log10 => format!("{label} (logarithmic)"),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(90, 90, 90))
            .label_style((FONT, 12))
            .axis_desc_style((FONT, 13))
            .x_labels(6)
            .y_labels(5)
            .x_desc(axis)
            .y_desc("count")
            .x_label_formatter(&place)
            .y_label_formatter(&count)
            .draw()
            .map_err(drawing)?;
        let bars = bins.counts.iter().enumerate().map(|(bar, count)| {
            let left = bins.low + bins.width * bar as f64;
            let corners = [(left, 0.0), (left + bins.width, *count as f64)];
            let mut bar = Rectangle::new(corners, BAR.filled());
            bar.set_margin(0, 0, 1, 0);
            bar
        });
        chart.draw_series(bars).map_err(drawing)?;
        Ok(())
    })
}

/// Curves over the steps of a run, with a legend where there are several.
pub(super) fn curves(curves: &[Curve], x: &str, y: &str) -> Result<Option<String>, ReportError> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let Some((left, right)) = range(points().map(|point| point.0)) else {
        return Ok(None);
    };
    let Some((bottom, top)) = range(points().map(|point| point.1)) else {
        return Ok(None);
    };
    draw(|area| {
        // The legend has a place of its own: a loss may go through any corner.
        let legend = if curves.len() > 1 { LEGEND } else { 0 };
        let (area, beside) = area.split_horizontally(SIZE.0 - legend);
        for (row, (curve, colour)) in curves.iter().zip(CURVES.iter().cycle()).enumerate() {
            if legend > 0 {
                name(&beside, row, &curve.name, *colour).map_err(drawing)?;
            }
        }
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(left..right, bottom..top)
            .map_err(drawing)?;
        let number = |value: &f64| short(*value);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(90, 90, 90))
            .label_style((FONT, 12))
            .axis_desc_style((FONT, 13))
            .x_labels(6)
            .y_labels(5)
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .draw()
            .map_err(drawing)?;
        for (curve, colour) in curves.iter().zip(CURVES.iter().cycle()) {
            let path = PathElement::new(curve.points.clone(), colour.stroke_width(2));
            chart.draw_series([path]).map_err(drawing)?;
        }
        Ok(())
    })
    .map(Some)
}

/// A line of the legend.
fn name(area: &Area<'_>, row: usize, name: &str, colour: RGBColor) -> Result<(), impl Display> {
    let y = 20 + 18 * i32::try_from(row).unwrap_or(i32::MAX / 18 - 2);
    area.draw(&PathElement::new([(0, y), (14, y)], colour.stroke_width(2)))?;
    area.draw(&Text::new(name.to_owned(), (20, y - 6), (FONT, 12)))
}

/// From the smallest to the largest finite value, never empty.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let values = values.filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let room = if high > low { 0.03 * (high - low) } else { 0.5 };
    (low <= high).then_some((low - room, high + room))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(paint: impl FnOnce(&Area<'_>) -> Result<(), ReportError>) -> Result<String, ReportError> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| drawing("the embedded font cannot be read"))?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        paint(&area)?;
        area.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing(error: impl std::fmt::Display) -> ReportError {
    ReportError::Drawing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_bar_for_each_bin_that_is_not_empty_and_its_labels() {
        let bins = Bins::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let svg = histogram(&bins, "residues & more").unwrap();
        assert!(
            svg.starts_with("<svg") && svg.contains("residues &amp; more"),
            "{svg}"
        );
        assert_eq!(svg.matches("#2166AC").count(), bins.counts.len());
    }

    #[test]
    fn curves_have_a_legend_and_nothing_is_drawn_of_nothing() {
        let curve = |name: &str, y| Curve {
            name: name.to_owned(),
            points: vec![(1.0, 2.0), (2.0, y)],
        };
        let svg = curves(&[curve("a<b", 3.0), curve("c", f64::NAN)], "step", "loss").unwrap();
        let svg = svg.unwrap();
        assert!(svg.contains("a&lt;b") && svg.contains("polyline"), "{svg}");
        assert_eq!(curves(&[], "step", "loss").unwrap(), None);
    }
}
