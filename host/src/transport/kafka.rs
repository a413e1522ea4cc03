//! Records through Kafka.
