"""HTTP/2 and gRPC, server side: bytes in, events out; sockets belong to `server`."""
