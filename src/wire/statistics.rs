//! What a version has done, in the protocol's form.

use std::time::Duration;

use crate::proto::{
    InferBatchStatistics, InferStatistics, LearnedServiceTime, MemoryUsage, ModelStatistics,
    StatisticDuration,
};
use crate::scheduler::Learned;
use crate::serving::{BatchCounts, Count, Version};

/// What a version has done since it was loaded.
pub fn model_statistics(version: &Version) -> ModelStatistics {
    let statistics = version.statistics();
    ModelStatistics {
        name: version.id.model.to_string(),
        version: version.id.version.to_string(),
        last_inference: statistics.last_run_milliseconds,
        inference_count: statistics.rows,
        execution_count: statistics.batches,
        inference_stats: Some(InferStatistics {
            success: duration(statistics.success),
            fail: duration(statistics.failure),
            queue: duration(statistics.queue),
            compute_input: duration(statistics.stack),
            compute_infer: duration(statistics.execute),
            compute_output: duration(statistics.slice),
            cache_hit: duration(statistics.cache_hit),
            cache_miss: duration(statistics.cache_miss),
        }),
        batch_stats: statistics
            .by_batch_size
            .iter()
            .map(|(rows, counts)| batch(*rows, counts))
            .collect(),
        memory_usage: version.memory.iter().map(memory).collect(),
        own_tokens: statistics.own_tokens,
        run_tokens: statistics.run_tokens,
        service_times: version.service_times().map(service_time).collect(),
        ..ModelStatistics::default()
    }
}

fn memory((device, bytes): &(String, u64)) -> MemoryUsage {
    let number = device
        .rsplit(':')
        .next()
        .and_then(|number| number.parse().ok());
    MemoryUsage {
        r#type: match device.starts_with("cuda") {
            true => "GPU".to_owned(),
            false => "CPU".to_owned(),
        },
        id: number.unwrap_or(0),
        byte_size: *bytes,
    }
}

fn service_time((device, learned): (String, Learned)) -> LearnedServiceTime {
    LearnedServiceTime {
        device,
        fixed_ns: learned.fixed,
        per_row_ns: learned.per_row,
        deviation_ns: learned.deviation,
        batches: learned.batches,
    }
}

fn batch(rows: usize, counts: &BatchCounts) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: rows as u64,
        compute_input: duration(counts.stack),
        compute_infer: duration(counts.execute),
        compute_output: duration(counts.slice),
    }
}

fn duration(count: Count) -> Option<StatisticDuration> {
    let nanoseconds = |total: Duration| u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
    Some(StatisticDuration {
        count: count.count,
        ns: nanoseconds(count.total),
    })
}
