//! What the suites of the Redis backend say again and again.
#![allow(dead_code, unused_imports)]

#[path = "engines.rs"]
mod engines;

use redis::Connection;

pub use engines::*;

use crate::redis_server::RedisServer;

pub fn raw(server: &RedisServer) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

pub fn ask<T: redis::FromRedisValue>(connection: &mut Connection, command: &str) -> T {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd.query(connection).unwrap()
}
