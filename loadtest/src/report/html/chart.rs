//! Lines in a frame, as SVG.

use std::fmt::Write;

/// Lines in a frame. The y axis starts at 0.
#[derive(Default)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    /// Places on the x axis that are named; its ends are the first and the last.
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
    /// Whether each point is marked.
    pub(super) dots: bool,
}

/// One line: its name and where it goes.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Colours that people with any eyes can tell apart (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666"];
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 46.0;

impl Chart {
    pub(super) fn svg(&self) -> String {
        let title = escape(&self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
             <text x=\"{LEFT}\" y=\"18\" class=\"title\">{title}</text>"
        );
        let frame = Frame::around(self);
        frame.grid(&mut svg, self);
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS.get(index % COLOURS.len()).unwrap_or(&"black");
            frame.line(&mut svg, line, colour);
            if self.dots || line.points.len() == 1 {
                frame.dots(&mut svg, line, colour);
            }
            let x = LEFT + 110.0 * index as f64;
            let _ = write!(
                svg,
                "<path d=\"M{x} 34h20\" stroke=\"{colour}\" stroke-width=\"2.5\"/>\
                 <text x=\"{}\" y=\"38\">{}</text>",
                x + 26.0,
                escape(&line.name)
            );
        }
        svg + "</svg>"
    }
}

/// What is where.
struct Frame {
    least: f64,
    most: f64,
    /// The highest mark of the y axis, and the distance of its marks.
    top: f64,
    step: f64,
}

impl Frame {
    fn around(chart: &Chart) -> Self {
        let ticks = chart.ticks.iter().map(|tick| tick.0);
        let points = chart.lines.iter().flat_map(|line| &line.points);
        let highest = points.map(|point| point.1).fold(0.0, f64::max);
        let step = round_step(highest / 4.0);
        Self {
            least: ticks.clone().fold(f64::MAX, f64::min),
            most: ticks.fold(f64::MIN, f64::max),
            top: (highest / step).ceil().max(1.0) * step,
            step,
        }
    }

    fn across(&self, x: f64) -> f64 {
        let width = (self.most - self.least).max(f64::MIN_POSITIVE);
        LEFT + (x - self.least) / width * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, svg: &mut String, chart: &Chart) {
        let mut mark = 0.0;
        while mark <= self.top * 1.0001 {
            let (y, end) = (self.down(mark), WIDTH - RIGHT);
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{end}\" class=\"grid\"/>\
                 <text x=\"{}\" y=\"{:.1}\" class=\"right\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                number(mark)
            );
            mark += self.step;
        }
        for (at, name) in &chart.ticks {
            let (x, y) = (self.across(*at), HEIGHT - BOTTOM);
            let _ = write!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{y}\" class=\"grid\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" class=\"middle\">{}</text>",
                y + 16.0,
                escape(name)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" class=\"middle\">{}</text>\
             <text transform=\"translate(14 {}) rotate(-90)\" class=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(&chart.x),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(&chart.y)
        );
    }

    fn line(&self, svg: &mut String, line: &Line, colour: &str) {
        let mut path = String::new();
        for (number, (x, y)) in line.points.iter().enumerate() {
            let letter = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.across(*x), self.down(*y));
        }
        let _ = write!(
            svg,
            "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>"
        );
    }

    fn dots(&self, svg: &mut String, line: &Line, colour: &str) {
        for (x, y) in &line.points {
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                self.across(*x),
                self.down(*y)
            );
        }
    }
}

/// 1, 2 or 5 times a power of ten, no less than this.
pub(super) fn round_step(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let fits = times
        .into_iter()
        .find(|times| times * power >= step * 0.999);
    fits.unwrap_or(10.0) * power
}

/// Without zeros that say nothing.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// Text that is no markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        for (step, round) in [(0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (26.0, 50.0), (0.0, 1.0)] {
            assert!((round_step(step) - round).abs() < 1e-12, "{step}");
        }
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn names_are_text() {
        let chart = Chart {
            title: "<script>".to_owned(),
            x: "\"x\"".to_owned(),
            y: "a & b".to_owned(),
            ticks: vec![(0.0, "0".to_owned()), (1.0, "1".to_owned())],
            lines: vec![Line {
                name: "</svg>".to_owned(),
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            }],
            dots: false,
        };
        let svg = chart.svg();
        assert!(!svg.contains("<script>") && svg.matches("</svg>").count() == 1);
        assert!(svg.contains("a &amp; b"));
    }
}
