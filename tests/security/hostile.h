/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a test that plays a hostile front: client processes of other users, which connect to a real enclave and keep, masked, each key that reaches them; and all bytes that the front itself was sent.
 * The test is linked with --wrap=recvmsg. Any failure ends the test. Threads: one.
 */
#ifndef SECPOOL_TESTS_SECURITY_HOSTILE_H
#define SECPOOL_TESTS_SECURITY_HOSTILE_H

#include <stdatomic.h>
#include <sys/mman.h>

#include "enclave/requests.h"
#include "tests/security/enclave_rig.h"
#include "tests/support/support.h"

/* Each user is one process with so many connections. Keys that one may get in one enclave's life. */
enum { HOSTILE_USERS = 3, HOSTILE_SOCKETS = 2, HOSTILE_KEYS_MOST = 4096, HOSTILE_FDS_MANY = 32 };
/* The parts that are secret: a root is a digest, and zeros where nothing is sealed. */
enum { HOSTILE_PARTS = offsetof(struct region_keys, root) / SUPPORT_PART_BYTES, HOSTILE_LOG_BYTES = 8 << 20 };

struct hostile_user {
	uint32_t uid;
	const char *tenant; /* that the policy allows it; NULL: none */
};

/* What a client's process says, in memory that it shares with the test. */
struct hostile_client {
	_Atomic unsigned asked, looked; /* the test wants it to look once more; it has looked */
	_Atomic unsigned keys, wrong;	/* that it got; messages that no client should get */
	uint8_t masked[HOSTILE_KEYS_MOST][sizeof(struct region_keys)];
};

static struct {
	struct rig *rig;
	struct hostile_client *clients; /* shared */
	pid_t pids[HOSTILE_USERS];
	int fronts[HOSTILE_USERS][HOSTILE_SOCKETS];
	unsigned seen[HOSTILE_USERS];
	bool recording;
	bool ended; /* the enclave was brought to its end, and has no memory any more */
	unsigned rights; /* descriptors that came to the front when none should */
	uint8_t *log;
	size_t log_bytes;
} hostile;

static inline const struct hostile_user *hostile_user(unsigned i)
{
	static const struct hostile_user users[HOSTILE_USERS] = {{65533, "theirs"}, {65532, "third"}, {65531, NULL}};

	return &users[i];
}

static inline unsigned hostile_index(const struct hostile_user *user)
{
	return (unsigned)(user - hostile_user(0));
}

/* ---- what the front is sent ---- */

ssize_t __real_recvmsg(int fd, struct msghdr *header, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *header, int flags);

ssize_t __wrap_recvmsg(int fd, struct msghdr *header, int flags)
{
	ssize_t count = __real_recvmsg(fd, header, flags);
	struct msg msg;

	if (count <= 0 || !hostile.recording)
		return count;
	if (hostile.log_bytes + (size_t)count > HOSTILE_LOG_BYTES)
		support_fail("the front was sent more than %d bytes", HOSTILE_LOG_BYTES);
	memcpy(hostile.log + hostile.log_bytes, header->msg_iov[0].iov_base, (size_t)count);
	hostile.log_bytes += (size_t)count;
	/* the clients' listening socket, at the start of each enclave, is the one descriptor for it */
	if (header->msg_controllen > 0 && (msg_decode(header->msg_iov[0].iov_base, (size_t)count, &msg) || msg.type != MSG_ENC_READY))
		hostile.rights++;
	return count;
}

/* ---- the clients' processes ---- */

/* One key: masked, without a copy in clear. */
static inline void hostile_keep(struct hostile_client *client, struct sock_extra *extra, const struct msg *msg)
{
	const struct pagecipher_binding binding = {msg->u.region_key.region, msg->u.region_key.epoch, msg->u.region_key.page_bytes};
	unsigned i = client->keys;
	struct region_keys keys;
	void *page;

	if (msg->type != MSG_REGION_KEY || extra->fd_count != 1 || !extra->has_sender || extra->sender.pid != hostile.rig->enclave.pid || i == HOSTILE_KEYS_MOST) {
		client->wrong++;
		return;
	}
	page = mmap(NULL, KEYPAGE_BYTES, PROT_READ, MAP_SHARED, extra->fds[0], 0);
	if (page == MAP_FAILED || keypage_get(page, &binding, &keys)) {
		client->wrong++;
		return;
	}
	for (size_t at = 0; at < sizeof keys; at++)
		client->masked[i][at] = ((const uint8_t *)&keys)[at] ^ SUPPORT_MASK;
	explicit_bzero(&keys, sizeof keys);
	munmap(page, KEYPAGE_BYTES);
	client->keys = i + 1;
}

static inline _Noreturn void hostile_be_client(unsigned user)
{
	struct hostile_client *client = &hostile.clients[user];
	uint32_t uid = hostile_user(user)->uid;
	int fds[HOSTILE_SOCKETS];

	hostile.recording = false;
	/* what it inherited is the front's */
	for (unsigned u = 0; u < HOSTILE_USERS; u++)
		for (unsigned i = 0; i < HOSTILE_SOCKETS; i++)
			os_close(&hostile.fronts[u][i]);
	os_close(&hostile.rig->enclave.socket);
	os_close(&hostile.rig->enclave.listener);
	if (setgid(uid) != 0 || setuid(uid) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		_exit(1);
	for (unsigned i = 0; i < HOSTILE_SOCKETS; i++)
		if (sock_connect(hostile.rig->socket_path, &fds[i]) || sock_want_credentials(fds[i]))
			_exit(1);
	for (;;) {
		unsigned asked = client->asked;
		for (unsigned i = 0; i < HOSTILE_SOCKETS; i++) {
			struct sock_extra extra = {.fd_count = 0};
			struct msg msg;
			while (sock_receive(fds[i], &msg, &extra, 0) == SECPOOL_OK) {
				hostile_keep(client, &extra, &msg);
				sock_close_fds(&extra);
			}
		}
		client->looked = asked;
		clock_sleep_ns(CLOCK_NS_PER_MS / 2);
	}
}

static inline void hostile_kill(unsigned user)
{
	int status = 0;

	if (hostile.pids[user] <= 0)
		return;
	SUPPORT_CHECK(kill(hostile.pids[user], SIGKILL) == 0);
	SUPPORT_CHECK(waitpid(hostile.pids[user], &status, 0) == hostile.pids[user]);
	SUPPORT_CHECK(WIFSIGNALED(status)); /* it did not end by itself */
	hostile.pids[user] = 0;
}

/* Takes the connection that waits; it must be the user's by the kernel's word. */
static inline int hostile_accept(unsigned user)
{
	uint64_t deadline_ns = clock_now_ns() + RIG_WAIT_NS;
	struct sock_peer peer;
	int fd = -1;

	while (sock_accept(hostile.rig->enclave.listener, &fd) && clock_now_ns() < deadline_ns)
		clock_sleep_ns(CLOCK_NS_PER_MS);
	SUPPORT_OK(sock_peer(fd, &peer));
	SUPPORT_CHECK(peer.uid == hostile_user(user)->uid && peer.pid == hostile.pids[user]);
	return fd;
}

/* Fresh processes, connected to the enclave that runs now. */
static inline void hostile_connect(void)
{
	for (unsigned user = 0; user < HOSTILE_USERS; user++) {
		hostile_kill(user);
		hostile.pids[user] = fork();
		SUPPORT_CHECK(hostile.pids[user] >= 0);
		if (hostile.pids[user] == 0)
			hostile_be_client(user);
		for (unsigned i = 0; i < HOSTILE_SOCKETS; i++) {
			os_close(&hostile.fronts[user][i]);
			hostile.fronts[user][i] = hostile_accept(user);
		}
	}
}

static inline void hostile_init(struct rig *rig)
{
	memset(&hostile, 0, sizeof hostile);
	hostile.rig = rig;
	memset(hostile.fronts, -1, sizeof hostile.fronts);
	hostile.clients = mmap(NULL, HOSTILE_USERS * sizeof *hostile.clients, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	hostile.log = mmap(NULL, HOSTILE_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(hostile.clients != MAP_FAILED && hostile.log != MAP_FAILED);
	hostile.recording = true;
}

static inline void hostile_done(void)
{
	hostile.recording = false;
	for (unsigned user = 0; user < HOSTILE_USERS; user++) {
		hostile_kill(user);
		for (unsigned i = 0; i < HOSTILE_SOCKETS; i++)
			os_close(&hostile.fronts[user][i]);
	}
	munmap(hostile.clients, HOSTILE_USERS * sizeof *hostile.clients);
	munmap(hostile.log, HOSTILE_LOG_BYTES);
}

/* Exactly so many keys came to the user's process since the last look, and nothing else. What an answered request sent is there: the enclave sends first. */
static inline void hostile_expect_keys(const struct hostile_user *user, unsigned count)
{
	unsigned i = hostile_index(user);
	struct hostile_client *client = &hostile.clients[i];
	uint64_t deadline_ns = clock_now_ns() + RIG_WAIT_NS;
	unsigned want = ++client->asked;

	while (client->looked != want && clock_now_ns() < deadline_ns)
		clock_sleep_ns(CLOCK_NS_PER_MS / 4);
	SUPPORT_CHECK(client->looked == want && client->wrong == 0);
	if (client->keys - hostile.seen[i] != count)
		support_fail("user %u got %u keys instead of %u", user->uid, client->keys - hostile.seen[i], count);
	hostile.seen[i] = client->keys;
}

/* ---- what the front asks ---- */

static inline int hostile_front(const struct hostile_user *user, unsigned socket)
{
	return hostile.fronts[hostile_index(user)][socket];
}

/* A session of the user's connection as this tenant. ret_opened may be NULL. */
static inline enum secpool_error hostile_open(const struct hostile_user *user, unsigned socket, const char *tenant, struct msg *ret_opened)
{
	struct msg open = {.type = MSG_ENC_SESSION_OPEN}, answer;
	struct msg_enc_session_open *in = &open.u.enc_session_open;
	int fd = hostile_front(user, socket);
	enum secpool_error error;

	MSG_SET(in->tenant, tenant);
	error = enclave_exchange(hostile.rig->enclave.socket, &hostile.rig->enclave.audit, &open, &fd, 1, MSG_ENC_SESSION_OPENED, &answer, RIG_WAIT_NS);
	if (!error)
		error = sock_answer_error(&answer);
	if (!error)
		SUPPORT_CHECK(answer.u.enc_session_opened.uid == user->uid);
	if (!error && ret_opened)
		*ret_opened = answer;
	return error;
}

/* A request for a key in this session, on device d0. */
static inline void hostile_create(const struct msg *opened, uint64_t region, uint64_t epoch, struct msg *ret_create)
{
	struct msg_enc_key_create *in = &ret_create->u.enc_key_create;

	memset(ret_create, 0, sizeof *ret_create);
	ret_create->type = MSG_ENC_KEY_CREATE;
	in->session = opened->u.enc_session_opened.session;
	in->region = region;
	in->epoch = epoch;
	in->page_bytes = 4096;
	in->device_count = 1;
	msg_set_text((char *)in->devices, MSG_NAME_BYTES, "d0");
}

static inline enum secpool_error hostile_key(const struct msg *opened, uint64_t region, uint64_t epoch, struct msg *ret_wrapped)
{
	struct msg create;

	hostile_create(opened, region, epoch, &create);
	return rig_key_as(hostile.rig, &create, ret_wrapped);
}

/* Any bytes, with so many copies of a client's socket. */
static inline void hostile_send(const uint8_t *bytes, size_t count, unsigned sockets)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * HOSTILE_FDS_MANY)];
		struct cmsghdr align;
	} control = {.bytes = {0}};
	struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(sizeof(int) * sockets)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * sockets);
	for (unsigned i = 0; i < sockets; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &hostile.fronts[0][i % HOSTILE_SOCKETS], sizeof(int));
	SUPPORT_CHECK(sendmsg(hostile.rig->enclave.socket, &header, MSG_NOSIGNAL) == (ssize_t)count);
}

/* The beginning of a file of the state folder, at most capacity bytes; returns how many. */
static inline size_t hostile_state_file(const char *name, uint8_t *bytes, size_t capacity)
{
	char path[RIG_PATH_BYTES + 64], *text = NULL;
	size_t count = 0;

	snprintf(path, sizeof path, "%s/%s", hostile.rig->state_dir, name);
	SUPPORT_OK(os_read_file(path, 1 << 16, &text, &count));
	SUPPORT_CHECK(count > 0);
	if (count > capacity)
		count = capacity;
	memcpy(bytes, text, count);
	free(text);
	return count;
}

/* ---- that no key was seen ---- */

/* Every part of every key that any client got. */
static inline struct support_sieve *hostile_sieve(void)
{
	struct support_sieve *sieve;
	size_t parts = 0, all = 0;
	uint8_t (*masked)[SUPPORT_PART_BYTES];

	for (unsigned user = 0; user < HOSTILE_USERS; user++)
		all += hostile.clients[user].keys * (size_t)HOSTILE_PARTS;
	masked = calloc(all + 1, sizeof *masked);
	SUPPORT_CHECK(masked != NULL);
	for (unsigned user = 0; user < HOSTILE_USERS; user++)
		for (unsigned key = 0; key < hostile.clients[user].keys; key++)
			for (size_t part = 0; part < HOSTILE_PARTS; part++)
				memcpy(masked[parts++], hostile.clients[user].masked[key] + part * SUPPORT_PART_BYTES, SUPPORT_PART_BYTES);
	sieve = support_sieve_new(masked, parts);
	free(masked);
	return sieve;
}

/* That the search finds what is there: how the log begins, and in the enclave, where it still runs, its socket's path, which is on its stack. */
static inline void hostile_search_control(void)
{
	const char *path = hostile.rig->socket_path;
	uint8_t masked[2][SUPPORT_PART_BYTES];
	struct support_sieve *sieve;

	SUPPORT_CHECK(hostile.log_bytes > SUPPORT_PART_BYTES && strlen(path) >= SUPPORT_PART_BYTES);
	for (size_t i = 0; i < SUPPORT_PART_BYTES; i++) {
		masked[0][i] = hostile.log[i] ^ SUPPORT_MASK;
		masked[1][i] = (uint8_t)path[i] ^ SUPPORT_MASK;
	}
	sieve = support_sieve_new(masked, 2);
	SUPPORT_CHECK(support_sieve_count_bytes(sieve, hostile.log, hostile.log_bytes) > 0);
	if (!hostile.ended)
		SUPPORT_CHECK(support_sieve_count_process(sieve, hostile.rig->enclave.pid, NULL) > 0);
	support_sieve_free(sieve);
}

/* No part of any key was sent to the front, nor is in the memory of a process that root can read, the front's own among them. */
static inline void hostile_search(void)
{
	const pid_t pids[] = {getpid(), hostile.rig->host.pid, hostile.rig->enclave.pid, hostile.rig->enclave.guardian};
	unsigned count = hostile.ended ? 2 : 4;
	struct support_sieve *sieve = hostile_sieve();

	SUPPORT_CHECK(hostile.rights == 0);
	hostile_search_control();
	if (support_sieve_count_bytes(sieve, hostile.log, hostile.log_bytes) != 0)
		support_fail("the front was sent a part of a key");
	for (unsigned i = 0; i < count; i++)
		if (support_sieve_count_process(sieve, pids[i], NULL) != 0)
			support_fail("a part of a key is in the memory of process %d", (int)pids[i]);
	support_sieve_free(sieve);
}

#endif
