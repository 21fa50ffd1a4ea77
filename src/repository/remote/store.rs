//! From a URL and the environment to a store that answers in bounded time.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreScheme, Result, RetryConfig,
};
use url::Url;

/// Silence, not slowness, ends a request: a model may be large. The variables of the store, such as
/// `AWS_READ_TIMEOUT`, go before these.
const TIMES: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    (ClientConfigKey::ReadTimeout, "30 seconds"),
    (ClientConfigKey::Timeout, "1 hour"),
];

/// The store that `url` names, and where in it the repository is.
///
/// Credentials and what else the store needs come from the environment, by the usual names.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    // Of several libraries for TLS that could be linked in, this one. It is there already if a
    // second repository is opened.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(Error::from)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => Arc::new(s3(url)?),
        ObjectStoreScheme::GoogleCloudStorage => Arc::new(google(url)?),
        ObjectStoreScheme::MicrosoftAzure => Arc::new(azure(url)?),
        _ => Arc::new(http(url)?),
    };
    Ok((store, path))
}

fn s3(url: &Url) -> Result<impl ObjectStore> {
    let mut builder = AmazonS3Builder::from_env()
        .with_url(url.as_str())
        .with_retry(retries());
    for (key, time) in TIMES {
        let key = AmazonS3ConfigKey::Client(key);
        if builder.get_config_value(&key).is_none() {
            builder = builder.with_config(key, time);
        }
    }
    builder.build()
}

fn google(url: &Url) -> Result<impl ObjectStore> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_url(url.as_str())
        .with_retry(retries());
    for (key, time) in TIMES {
        let key = GoogleConfigKey::Client(key);
        if builder.get_config_value(&key).is_none() {
            builder = builder.with_config(key, time);
        }
    }
    builder.build()
}

fn azure(url: &Url) -> Result<impl ObjectStore> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_url(url.as_str())
        .with_retry(retries());
    for (key, time) in TIMES {
        let key = AzureConfigKey::Client(key);
        if builder.get_config_value(&key).is_none() {
            builder = builder.with_config(key, time);
        }
    }
    builder.build()
}

fn http(url: &Url) -> Result<impl ObjectStore> {
    let mut host = url.clone();
    host.set_path("");
    let mut builder = HttpBuilder::new()
        .with_url(host.as_str())
        .with_retry(retries())
        .with_config(ClientConfigKey::AllowHttp, "true");
    for (key, time) in TIMES {
        builder = builder.with_config(key, time);
    }
    builder.build()
}

// Short: whoever looks at the store looks again, with longer and longer pauses.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    }
}
