//! Request metrics under Synapse's names.

use httpcrate::Method;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::sync::LazyLock;
use std::time::Instant;

/// Every metric of the process. Others register theirs here, too.
pub static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

static RESPONSES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register(IntCounterVec::new(
        Opts::new("synapse_http_server_response_count", "Responses by method, servlet and status"),
        &["method", "servlet", "code"],
    ))
});

static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let opts = HistogramOpts::new("synapse_http_server_response_time_seconds", "Time to answer")
        .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
    register(HistogramVec::new(opts, &["method", "servlet"]))
});

static IN_FLIGHT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register(IntGaugeVec::new(
        Opts::new("synapse_http_server_in_flight_requests_count", "Requests being answered"),
        &["method", "servlet"],
    ))
});

/// Registers a metric that was just made. Names are literals, so failure means two of the same name;
/// the later one then counts without being shown.
fn register<M: prometheus::core::Collector + Clone + 'static>(made: prometheus::Result<M>) -> M {
    let metric = made.expect("metric names and labels are literals");
    let _ = REGISTRY.register(Box::new(metric.clone()));
    metric
}

/// Counts a finished response.
pub fn count_response(method: &Method, servlet: &str, code: u16) {
    let mut buffer = [0u8; 3];
    let code = code.min(999);
    buffer.iter_mut().zip([code / 100, code / 10 % 10, code % 10]).for_each(|(b, d)| *b = b'0' + d as u8);
    let code = std::str::from_utf8(&buffer).unwrap_or("500");
    RESPONSES.with_label_values(&[method.as_str(), servlet, code]).inc();
}

/// Measures one request.
pub struct Timer {
    started: Instant,
    method: Method,
    servlet: &'static str,
}

impl Timer {
    pub fn start(method: &Method, servlet: &'static str) -> Self {
        IN_FLIGHT.with_label_values(&[method.as_str(), servlet]).inc();
        Self { started: Instant::now(), method: method.clone(), servlet }
    }

    /// Ends the measurement (as dropping does).
    pub fn stop(self) {}
}

impl Drop for Timer {
    fn drop(&mut self) {
        let labels = [self.method.as_str(), self.servlet];
        IN_FLIGHT.with_label_values(&labels).dec();
        SECONDS.with_label_values(&labels).observe(self.started.elapsed().as_secs_f64());
    }
}

/// The exposition text of everything registered.
pub fn render() -> String {
    prometheus::TextEncoder::new().encode_to_string(&REGISTRY.gather()).unwrap_or_default()
}
