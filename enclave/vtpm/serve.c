/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/vtpm/serve.h"

#include <openssl/crypto.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "enclave/vtpm/tpm20.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

enum { BACKLOG = 32 };
enum { POLL_STOP = 0, POLL_LISTENER = 1, POLL_FIRST = 2 };

/* One client. While an answer is being written no command is read. */
struct connection {
	int fd; /* -1: free */
	size_t in_used, out_used, out_sent;
	uint8_t in[TPM20_BUFFER_BYTES];
	uint8_t out[TPM20_BUFFER_BYTES];
};

static enum secpool_error remove_stale(const struct sockaddr_un *address)
{
	struct stat about;
	int fd, answered;

	if (lstat(address->sun_path, &about) != 0)
		return SECPOOL_OK;
	if (!S_ISSOCK(about.st_mode))
		return err_set(SECPOOL_E_EXISTS, "%s is there and is not a socket: remove it",
			address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	answered = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
		   os_would_block();
	os_close(&fd);
	if (answered)
		return err_set(SECPOOL_E_BUSY, "another process listens at %s, end it first",
			address->sun_path);
	if (unlink(address->sun_path) != 0) {
		enum secpool_error error = os_error("remove %s", address->sun_path);
		return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
	}
	return SECPOOL_OK;
}

enum secpool_error serve_listen(const char *path, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum secpool_error error;
	mode_t mask;
	int fd;

	if (strlen(path) >= sizeof address.sun_path)
		return err_set(SECPOOL_E_LIMIT, "the socket's path is too long: %s", path);
	memcpy(address.sun_path, path, strlen(path));
	error = remove_stale(&address);
	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	mask = umask(0177); /* there is no moment at which others could connect */
	if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0)
		error = os_error("bind %s", path);
	umask(mask);
	if (!error && listen(fd, BACKLOG) != 0) {
		error = os_error("listen %s", path);
		unlink(path);
	}
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

static void drop(struct connection *connection)
{
	os_close(&connection->fd);
	OPENSSL_cleanse(connection, sizeof *connection);
	connection->fd = -1;
}

static void refuse(struct connection *connection, size_t bytes)
{
	static struct log_limit limit = {.period_ns = CLOCK_NS_PER_S, .burst = 5};

	if (log_allowed(&limit))
		log_event(LOG_LEVEL_WARNING, "command-refused", "bytes=%zu most=%d", bytes,
			TPM20_BUFFER_BYTES);
	drop(connection);
}

/* The size that a command's header names; the header is complete. */
static size_t command_bytes(const struct connection *connection)
{
	const uint8_t *at = connection->in + 2;

	return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

static void send_answer(struct connection *connection)
{
	while (connection->out_sent < connection->out_used) {
		ssize_t sent = send(connection->fd, connection->out + connection->out_sent,
			connection->out_used - connection->out_sent, MSG_NOSIGNAL);
		if (sent < 0 && os_interrupted())
			continue;
		if (sent < 0 && os_would_block())
			return;
		if (sent < 0) {
			drop(connection);
			return;
		}
		connection->out_sent += (size_t)sent;
	}
	OPENSSL_cleanse(connection->out, connection->out_used);
	connection->out_used = connection->out_sent = 0;
}

/*
 * Reads up to `want` bytes of the command in all; false when there is nothing more now (or ever).
 */
static bool read_up_to(struct connection *connection, size_t want)
{
	while (connection->in_used < want) {
		ssize_t got = recv(connection->fd, connection->in + connection->in_used,
			want - connection->in_used, 0);
		if (got < 0 && os_interrupted())
			continue;
		if (got < 0 && os_would_block())
			return false;
		if (got <= 0) {
			drop(connection);
			return false;
		}
		connection->in_used += (size_t)got;
	}
	return true;
}

/* Reads what has come, and runs the command when it is whole. */
static enum secpool_error read_command(struct connection *connection)
{
	enum secpool_error error;
	size_t bytes;

	if (connection->in_used < TPM20_HEADER_BYTES && !read_up_to(connection, TPM20_HEADER_BYTES))
		return SECPOOL_OK;
	bytes = command_bytes(connection);
	if (bytes < TPM20_HEADER_BYTES || bytes > sizeof connection->in) {
		refuse(connection, bytes);
		return SECPOOL_OK;
	}
	if (!read_up_to(connection, bytes))
		return SECPOOL_OK;
	error = tpm20_process(connection->in, bytes, connection->out, &connection->out_used);
	OPENSSL_cleanse(connection->in, bytes);
	connection->in_used = 0;
	if (!error)
		send_answer(connection);
	return error;
}

static enum secpool_error serve_connection(struct connection *connection, short events)
{
	if (events & (POLLERR | POLLNVAL)) {
		drop(connection);
		return SECPOOL_OK;
	}
	if (connection->out_used > 0) {
		if (events & POLLHUP)
			drop(connection);
		else
			send_answer(connection);
		return SECPOOL_OK;
	}
	return read_command(connection);
}

static void accept_one(int listener, struct connection *connections)
{
	struct connection *free_one = NULL;
	int fd;

	for (unsigned i = 0; i < SERVE_CONNECTIONS_MOST && !free_one; i++)
		if (connections[i].fd < 0)
			free_one = &connections[i];
	if (!free_one)
		return;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		free_one->fd = fd;
}

/* Who is polled for what; a full table leaves further clients in the queue. */
static void fill_polls(
	struct pollfd *polls, int listener, int stop_fd, const struct connection *connections)
{
	bool room = false;

	for (unsigned i = 0; i < SERVE_CONNECTIONS_MOST; i++) {
		const struct connection *c = &connections[i];
		polls[POLL_FIRST + i] =
			(struct pollfd){.fd = c->fd, .events = c->out_used > 0 ? POLLOUT : POLLIN};
		room = room || c->fd < 0;
	}
	polls[POLL_STOP] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
	polls[POLL_LISTENER] = (struct pollfd){.fd = room ? listener : -1, .events = POLLIN};
}

enum secpool_error serve_run(int listener, int stop_fd)
{
	struct connection *connections = calloc(SERVE_CONNECTIONS_MOST, sizeof *connections);
	struct pollfd polls[POLL_FIRST + SERVE_CONNECTIONS_MOST];
	enum secpool_error error = SECPOOL_OK;

	if (!connections)
		return os_error("serve");
	for (unsigned i = 0; i < SERVE_CONNECTIONS_MOST; i++)
		connections[i].fd = -1;
	while (!error) {
		fill_polls(polls, listener, stop_fd, connections);
		if (poll(polls, POLL_FIRST + SERVE_CONNECTIONS_MOST, -1) < 0) {
			if (!os_interrupted())
				error = os_error("poll");
			continue;
		}
		if (polls[POLL_STOP].revents)
			break;
		for (unsigned i = 0; i < SERVE_CONNECTIONS_MOST && !error; i++)
			if (polls[POLL_FIRST + i].revents)
				error = serve_connection(
					&connections[i], polls[POLL_FIRST + i].revents);
		if (polls[POLL_LISTENER].revents)
			accept_one(listener, connections);
	}
	for (unsigned i = 0; i < SERVE_CONNECTIONS_MOST; i++)
		drop(&connections[i]);
	free(connections);
	return error;
}
