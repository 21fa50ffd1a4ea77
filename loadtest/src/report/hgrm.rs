//! Latencies in the text form that HdrHistogram's own tools draw (`.hgrm`).

use std::fmt::Write;

use hdrhistogram::Histogram;

/// The distribution of a histogram of nanoseconds, in milliseconds.
pub fn write_hgrm(histogram: &Histogram<u64>) -> String {
    let milliseconds = |nanoseconds: f64| nanoseconds / 1e6;
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    let mut count = 0;
    for value in histogram.iter_quantiles(5) {
        let quantile = value.quantile_iterated_to();
        count += value.count_since_last_iteration();
        let _ = write!(
            text,
            "{:12.6} {quantile:2.12} {:10}",
            milliseconds(value.value_iterated_to() as f64),
            count,
        );
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n#[Max     = {:12.6}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]",
        milliseconds(histogram.mean()),
        milliseconds(histogram.stdev()),
        milliseconds(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        2_048,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_ascend_to_the_whole() {
        let mut histogram = Histogram::new(3).unwrap();
        for millisecond in 1..=1_000_u64 {
            histogram.record(millisecond * 1_000_000).unwrap();
        }
        let text = write_hgrm(&histogram);
        let lines = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'));
        let rows: Vec<Vec<f64>> = lines
            .map(|line| {
                line.split_whitespace()
                    .map(|word| word.parse().unwrap())
                    .collect()
            })
            .collect();
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 500.0).abs() < 1.0 && (median[3] - 2.0).abs() < 0.01);
        let last = rows.last().unwrap();
        assert!((last[0] - 1_000.0).abs() < 1.0 && last[1] == 1.0 && last[2] == 1_000.0);
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
