//! The Rust client: `eventsource-client`, over its own HTTP transport. Run by run.py with one JSON
//! argument; prints what the client dispatches, a line each, as run.py describes. Judges nothing.

use std::error::Error as StdError;
use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, Error, ReconnectOptions, SSE};
use futures::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let argument = std::env::args().nth(1).ok_or("one JSON argument")?;
    let argument: Value = serde_json::from_str(&argument)?;
    let url = argument["url"].as_str().ok_or("the argument has a url")?;
    let last = argument["last"].as_str().ok_or("the argument has a last")?;

    let reconnect = ReconnectOptions::reconnect(true).delay(Duration::from_secs(1)).build();
    let client = ClientBuilder::for_url(url)?
        .header("Accept", "text/event-stream")?
        .reconnect(reconnect)
        .build_with_transport(HyperTransport::builder().build_http()?);
    let mut stream = client.stream();
    while let Some(item) = stream.next().await {
        match item {
            Ok(SSE::Connected(_)) => println!("{}", json!({"open": true})),
            Ok(SSE::Comment(_)) => {}
            Ok(SSE::Event(event)) => {
                println!("{}", json!({"message": [event.event_type, event.id, event.data]}));
                if event.data.contains(last) {
                    return Ok(());
                }
            }
            Err(Error::Eof) => println!("{}", json!({"closed": "clean"})),
            Err(error) => println!("{}", json!({"closed": error.to_string()})),
        }
    }
    Err("the client gave up".into())
}
