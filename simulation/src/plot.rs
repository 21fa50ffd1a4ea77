//! Panels of lines as SVG, without anything that has to be installed to see them.

use std::fmt::Write;

/// One line of a panel.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is, for the legend.
    pub name: String,
    /// Where it goes.
    pub points: Vec<(f64, f64)>,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Over it.
    pub title: String,
    /// Under it.
    pub x: String,
    /// Its ticks, by what is written there.
    pub ticks: Vec<(f64, String)>,
    /// The lines, in the order of the legend.
    pub lines: Vec<Line>,
}

/// Colours that people with any eyes can tell apart (Okabe and Ito), ours first.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#999999",
];
const DASHES: [&str; 6] = ["", "6 3", "2 3", "8 3 2 3", "4 4", "1 3"];
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// Panels beside each other, two to a row, with one legend; all from 0 to `top` on the y axis.
pub fn svg(title: &str, y: &str, top: f64, panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2);
    let (width, height) = (2.0 * WIDTH, rows as f64 * HEIGHT + 66.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"{title}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n"
    );
    if let Some(panel) = panels.first() {
        legend(&mut svg, panel);
    }
    for (index, panel) in panels.iter().enumerate() {
        let (column, row) = (index % 2, index / 2);
        let (x, down) = (column as f64 * WIDTH, row as f64 * HEIGHT + 60.0);
        let _ = writeln!(svg, "<g transform=\"translate({x} {down})\">");
        draw(&mut svg, panel, y, top);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn style(index: usize) -> String {
    let colour = COLOURS.get(index).unwrap_or(&"black");
    let dash = DASHES.get(index).unwrap_or(&"");
    let width = if index == 0 { 2.5 } else { 1.5 };
    format!(
        "stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\" fill=\"none\""
    )
}

fn legend(svg: &mut String, panel: &Panel) {
    let mut x = LEFT;
    for (index, line) in panel.lines.iter().enumerate() {
        let (end, text) = (x + 26.0, x + 32.0);
        let style = style(index);
        let _ = writeln!(
            svg,
            "<path d=\"M{x} 40H{end}\" {style}/><text x=\"{text}\" y=\"44\">{}</text>",
            line.name
        );
        x = text + 7.0 * line.name.len() as f64 + 18.0;
    }
}

fn draw(svg: &mut String, panel: &Panel, y: &str, top: f64) {
    let (least, most) = panel
        .ticks
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), (at, _)| {
            (least.min(*at), most.max(*at))
        });
    let (inner, tall) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let across = |x: f64| LEFT + (x - least) / (most - least).max(f64::MIN_POSITIVE) * inner;
    let down = |y: f64| TOP + tall - (y / top).min(1.0) * tall;
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>",
        TOP - 12.0,
        panel.title
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (at, end) = (down(value), WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.2}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (at, name) in &panel.ticks {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            across(*at),
            TOP + tall + 16.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(12 {}) rotate(-90)\" text-anchor=\"middle\">{y}</text>",
        LEFT + inner / 2.0,
        TOP + tall + 34.0,
        panel.x,
        TOP + tall / 2.0
    );
    // Ours last, so that it lies on top.
    for (index, line) in panel.lines.iter().enumerate().rev() {
        let mut path = String::new();
        for (number, (x, y)) in line.points.iter().enumerate() {
            let letter = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", across(*x), down(*y));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" {}/>", style(index));
    }
}
