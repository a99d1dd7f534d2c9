/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/tcti.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

/* "secpool1" */
#define TCTI_MAGIC 0x736563706f6f6c31ull
/* tag, size, code: TPM 2.0 part 1, section 18 */
enum { HEADER_BYTES = 10 };

enum tcti_phase { PHASE_TRANSMIT, PHASE_RECEIVE, PHASE_BROKEN };

struct tcti {
	TSS2_TCTI_CONTEXT_COMMON_V2 common; /* first: tpm2-tss sees only this */
	int fd;
	bool device; /* no socket */
	enum tcti_phase phase;
	uint64_t timeout_ns, deadline_ns;
	size_t used; /* bytes of the answer received so far */
	uint8_t answer[TCTI_BUFFER_BYTES];
};

static struct tcti *self_of(TSS2_TCTI_CONTEXT *tcti)
{
	struct tcti *self = (struct tcti *)tcti;

	return self && self->common.v1.magic == TCTI_MAGIC ? self : NULL;
}

static size_t frame_bytes(const uint8_t *frame)
{
	return (size_t)frame[2] << 24 | (size_t)frame[3] << 16 | (size_t)frame[4] << 8 | frame[5];
}

static TSS2_RC drop(struct tcti *self, TSS2_RC rc)
{
	os_close(&self->fd);
	self->phase = PHASE_BROKEN;
	return rc;
}

/*
 * Waits for events until the deadline; false when it passed. An error of the socket counts as
 * ready: the call then tells it.
 */
static bool wait_until(const struct tcti *self, short events, uint64_t deadline_ns)
{
	struct pollfd poll_fd = {.fd = self->fd, .events = events};

	for (;;) {
		uint64_t now = clock_now_ns();
		uint64_t left_ns = deadline_ns > now ? deadline_ns - now : 0;
		int left_ms = (int)((left_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS);
		int ready = poll(&poll_fd, 1, left_ms);
		if (ready > 0)
			return true;
		if (ready < 0 && !os_interrupted())
			return false;
		if (left_ns == 0)
			return false;
	}
}

static TSS2_RC tcti_transmit(TSS2_TCTI_CONTEXT *tcti, size_t size, const uint8_t *command)
{
	struct tcti *self = self_of(tcti);

	if (!self || !command)
		return TSS2_TCTI_RC_BAD_REFERENCE;
	if (self->phase == PHASE_BROKEN)
		return TSS2_TCTI_RC_IO_ERROR;
	if (self->phase != PHASE_TRANSMIT)
		return TSS2_TCTI_RC_BAD_SEQUENCE;
	if (size < HEADER_BYTES || size > TCTI_BUFFER_BYTES || frame_bytes(command) != size)
		return TSS2_TCTI_RC_BAD_VALUE;
	self->deadline_ns = clock_now_ns() + self->timeout_ns;
	for (size_t sent = 0; sent < size;) {
		ssize_t done = self->device
				       ? write(self->fd, command + sent, size - sent)
				       : send(self->fd, command + sent, size - sent, MSG_NOSIGNAL);
		if (done >= 0)
			sent += (size_t)done;
		else if (os_would_block() && wait_until(self, POLLOUT, self->deadline_ns))
			continue;
		else if (!os_interrupted())
			return drop(self, TSS2_TCTI_RC_IO_ERROR);
	}
	self->used = 0;
	self->phase = PHASE_RECEIVE;
	return TSS2_RC_SUCCESS;
}

/* Receives until `want` bytes of the answer are here. TRY_AGAIN: not before until_ns. A device that is read before it has an answer gives 0 bytes, so it is waited for first. */
static TSS2_RC receive_up_to(struct tcti *self, size_t want, uint64_t until_ns)
{
	while (self->used < want) {
		if (wait_until(self, POLLIN, until_ns)) {
			size_t left = want - self->used;
			uint8_t *to = self->answer + self->used;
			ssize_t got = self->device ? read(self->fd, to, left)
						   : recv(self->fd, to, left, 0);
			if (got > 0)
				self->used += (size_t)got;
			else if (got == 0 || (!os_interrupted() && !os_would_block()))
				return drop(self, TSS2_TCTI_RC_IO_ERROR);
			continue;
		}
		if (clock_now_ns() >= self->deadline_ns)
			return drop(self, TSS2_TCTI_RC_IO_ERROR);
		return TSS2_TCTI_RC_TRY_AGAIN;
	}
	return TSS2_RC_SUCCESS;
}

static TSS2_RC tcti_receive(
	TSS2_TCTI_CONTEXT *tcti, size_t *size, uint8_t *response, int32_t timeout)
{
	struct tcti *self = self_of(tcti);
	uint64_t until_ns;
	size_t bytes;
	TSS2_RC rc;

	if (!self || !size)
		return TSS2_TCTI_RC_BAD_REFERENCE;
	if (self->phase == PHASE_BROKEN)
		return TSS2_TCTI_RC_IO_ERROR;
	if (self->phase != PHASE_RECEIVE)
		return TSS2_TCTI_RC_BAD_SEQUENCE;
	if (timeout < TSS2_TCTI_TIMEOUT_BLOCK)
		return TSS2_TCTI_RC_BAD_VALUE;
	until_ns = self->deadline_ns; /* also for "block": nothing here blocks for ever */
	if (timeout >= 0) {
		uint64_t asked_ns = clock_now_ns() + (uint64_t)timeout * CLOCK_NS_PER_MS;
		until_ns = asked_ns < until_ns ? asked_ns : until_ns;
	}
	rc = receive_up_to(self, HEADER_BYTES, until_ns);
	if (rc)
		return rc;
	bytes = frame_bytes(self->answer);
	if (bytes < HEADER_BYTES || bytes > sizeof self->answer)
		return drop(self, TSS2_TCTI_RC_MALFORMED_RESPONSE);
	rc = receive_up_to(self, bytes, until_ns);
	if (rc)
		return rc;
	if (!response) {
		*size = bytes;
		return TSS2_RC_SUCCESS;
	}
	if (*size < bytes) {
		*size = bytes;
		return TSS2_TCTI_RC_INSUFFICIENT_BUFFER;
	}
	memcpy(response, self->answer, bytes);
	*size = bytes;
	secmem_wipe(self->answer, bytes);
	self->phase = PHASE_TRANSMIT;
	return TSS2_RC_SUCCESS;
}

static TSS2_RC tcti_poll_handles(
	TSS2_TCTI_CONTEXT *tcti, TSS2_TCTI_POLL_HANDLE *handles, size_t *count)
{
	struct tcti *self = self_of(tcti);

	if (!self || !count)
		return TSS2_TCTI_RC_BAD_REFERENCE;
	if (handles && *count < 1)
		return TSS2_TCTI_RC_INSUFFICIENT_BUFFER;
	if (handles)
		handles[0] = (TSS2_TCTI_POLL_HANDLE){.fd = self->fd, .events = POLLIN};
	*count = 1;
	return TSS2_RC_SUCCESS;
}

/* A plain stream of commands has no way to say any of these. */
static TSS2_RC tcti_cancel(TSS2_TCTI_CONTEXT *tcti)
{
	return self_of(tcti) ? TSS2_TCTI_RC_NOT_IMPLEMENTED : TSS2_TCTI_RC_BAD_REFERENCE;
}

static TSS2_RC tcti_locality(TSS2_TCTI_CONTEXT *tcti, uint8_t locality)
{
	(void)locality;
	return self_of(tcti) ? TSS2_TCTI_RC_NOT_IMPLEMENTED : TSS2_TCTI_RC_BAD_REFERENCE;
}

static TSS2_RC tcti_sticky(TSS2_TCTI_CONTEXT *tcti, TPM2_HANDLE *handle, uint8_t sticky)
{
	(void)handle;
	(void)sticky;
	return self_of(tcti) ? TSS2_TCTI_RC_NOT_IMPLEMENTED : TSS2_TCTI_RC_BAD_REFERENCE;
}

static void tcti_finalize(TSS2_TCTI_CONTEXT *tcti)
{
	struct tcti *self = self_of(tcti);

	if (self)
		drop(self, TSS2_RC_SUCCESS);
}

static enum secpool_error connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum secpool_error error = SECPOOL_OK;
	int fd;

	if (strlen(path) >= sizeof address.sun_path)
		return err_set(SECPOOL_E_TPM, "the TPM's socket path is too long: %s", path);
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
		error = os_error("connect");
		error = err_set(SECPOOL_E_TPM, "no TPM answers at %s: %s: is secpool-vtpm running?",
			path, err_detail());
		os_close(&fd);
	} else {
		*ret_fd = fd;
	}
	return error;
}

static struct tcti *make(bool device, unsigned timeout_ms)
{
	struct tcti *self = calloc(1, sizeof *self);

	if (!self)
		return NULL;
	self->device = device;
	self->timeout_ns = (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
	self->common.v1 = (TSS2_TCTI_CONTEXT_COMMON_V1){
		.magic = TCTI_MAGIC,
		.version = 2,
		.transmit = tcti_transmit,
		.receive = tcti_receive,
		.finalize = tcti_finalize,
		.cancel = tcti_cancel,
		.getPollHandles = tcti_poll_handles,
		.setLocality = tcti_locality,
	};
	self->common.makeSticky = tcti_sticky;
	self->fd = -1;
	return self;
}

enum secpool_error tcti_open_socket(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti)
{
	struct tcti *self = make(false, timeout_ms ? timeout_ms : TCTI_TIMEOUT_MS);
	enum secpool_error error;

	if (!self)
		return os_error("connect to the TPM");
	error = connect_to(path, &self->fd);
	if (error)
		free(self);
	else
		*ret_tcti = (TSS2_TCTI_CONTEXT *)self;
	return error;
}

enum secpool_error tcti_open_device(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti)
{
	struct tcti *self = make(true, timeout_ms ? timeout_ms : TCTI_DEVICE_TIMEOUT_MS);
	enum secpool_error error;

	if (!self)
		return os_error("open the TPM");
	self->fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (self->fd < 0) {
		error = os_error("open %s", path);
		free(self);
		return err_set(SECPOOL_E_TPM, "%s: is there a TPM, and may this user open it?",
			error ? err_detail() : path);
	}
	*ret_tcti = (TSS2_TCTI_CONTEXT *)self;
	return SECPOOL_OK;
}

void tcti_free(TSS2_TCTI_CONTEXT *tcti)
{
	struct tcti *self = self_of(tcti);

	if (!self)
		return;
	drop(self, TSS2_RC_SUCCESS);
	secmem_wipe(self, sizeof *self);
	free(self);
}
