"""What each call of the client does, written once for the synchronous and the asynchronous one."""
