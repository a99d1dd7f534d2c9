/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit of real daemons, from outside: what happened is in it, and no key; a changed, cut or foreign copy is found by the command; killed with -9 and started again it goes on; on a full
 * disk (a small tmpfs of this test's own; needs root, else it is left out) what needs a record is refused with the reason until there is room, and the daemon goes on. timeout: 180
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "enclave/keypage.h"
#include "enclave/pagecipher.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"
#include "tests/support/support.h"

enum {
	PAGE = 4096,
	WAIT_MS = 60000,
	NEEDLES_MOST = 64,
	TEXT_MOST = 1 << 20,
	SESSIONS_MOST = 200,
	SHORT_RECORDS = 4
};

static struct support_needle needles[NEEDLES_MOST];
static size_t needle_count;
static char text[TEXT_MOST];

/* Places below the runtime folder. */
static char audit[256], anchor[256], file[256], beside[256], small[256], there[256], filler[256];
static char receipt[256];

/* ---- keys ---- */

enum secpool_error __real_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);

static void add_needle(const void *bytes, size_t count)
{
	const uint8_t *at = bytes;
	struct support_needle *needle = &needles[needle_count++];

	SUPPORT_CHECK(needle_count < NEEDLES_MOST && count <= sizeof needle->masked);
	needle->bytes = count;
	for (size_t i = 0; i < count; i++)
		needle->masked[i] = at[i] ^ SUPPORT_MASK;
}

/* A key's first 16 bytes as they are, in hex, and in base64 at each of the three offsets. */
static void look_for(const uint8_t *key)
{
	enum { SOME = 16 };
	char hex[2 * SOME + 1];
	unsigned char base64[32];

	add_needle(key, SOME);
	for (size_t i = 0; i < SOME; i++)
		snprintf(hex + 2 * i, 3, "%02x", key[i]);
	add_needle(hex, 2 * SOME);
	for (int skipped = 0; skipped < 3; skipped++)
		add_needle(base64, (size_t)EVP_EncodeBlock(base64, key + skipped, 12));
}

/* The library's own call (the linker's --wrap): the test learns the keys that this client was given. */
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret)
{
	void *page = mmap(NULL, KEYPAGE_BYTES, PROT_READ, MAP_SHARED, key_fd, 0);
	struct region_keys keys;

	SUPPORT_CHECK(page != MAP_FAILED);
	SUPPORT_OK(keypage_get(page, expect, &keys));
	look_for(keys.xts);
	look_for(keys.tag);
	explicit_bzero(&keys, sizeof keys);
	munmap(page, KEYPAGE_BYTES);
	return __real_pagecipher_new(key_fd, expect, workers, ret);
}

static void no_key_is_in_it(void)
{
	/* a region with the keys of two epochs, two keys each */
	SUPPORT_CHECK(needle_count == 2 * 2 * 5);
	for (size_t i = 0; i < needle_count; i++) {
		SUPPORT_CHECK(support_count_file(&needles[i], audit) == 0);
		SUPPORT_CHECK(support_count_file(&needles[i], anchor) == 0);
	}
}

/* ---- what happens ---- */

static bool is_recorded(void *words)
{
	support_cli(text, sizeof text, "audit", "list", "--json", NULL);
	return strstr(text, words) != NULL;
}

static void await_record(const char *kind)
{
	char words[64];

	snprintf(words, sizeof words, "\"kind\":\"%s\"", kind);
	if (!support_wait(is_recorded, words, WAIT_MS))
		support_fail("no record %s in %s", kind, text);
}

static void change_policy(const char *from, const char *to)
{
	char changed[1 << 16], *policy = NULL;
	const char *path = support_path("policy.yaml"), *at;
	size_t bytes = 0;
	int length;

	SUPPORT_OK(os_read_file(path, sizeof changed, &policy, &bytes));
	at = strstr(policy, from);
	SUPPORT_CHECK(at != NULL);
	length = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - policy), policy, to,
		at + strlen(from));
	SUPPORT_CHECK(length > 0 && length < (int)sizeof changed);
	SUPPORT_OK(os_write_file_durable(path, changed, (size_t)length, 0600));
	free(policy);
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGHUP) == 0);
}

static bool may_be(const char *tenant)
{
	int fd = -1;
	enum secpool_error error = support_session(tenant, 4 << 20, &fd);

	os_close(&fd);
	return !error;
}

static void use_it(void)
{
	struct secpool_receipt got = {.size = sizeof got};
	struct secpool *pool = support_open("alpha", 4 << 20);
	struct secpool_region *region = support_region(pool, 256 * PAGE, 2);

	support_fill(secpool_region_address(region), PAGE, 7);
	SUPPORT_CHECK(support_cli(text, sizeof text, "tenant", "rotate", "alpha", NULL) == 0);
	SUPPORT_CHECK(support_matches(secpool_region_address(region), PAGE, 7));
	SUPPORT_OK(secpool_region_release(region, &got));
	SUPPORT_OK(os_write_file_durable(receipt, got.text, strlen(got.text), 0600));
	secpool_close(pool);
}

static void all_is_recorded(void)
{
	static const char *const kinds[] = {"provisioned", "session-opened", "session-closed",
		"key-created", "key-destroyed", "receipt", "device-attested", "refused",
		"rotation-asked", "policy-refused", "policy-loaded", "stopping", "unsealed",
		"attestation-refused"};

	SUPPORT_CHECK(!may_be("nobody-at-all"));
	change_policy("version: 1", "version: 2");
	await_record("policy-refused");
	change_policy("version: 2", "version: 1");
	await_record("policy-loaded");
	/* at once: while it starts again */
	change_policy("secpool-emulated-1.0", "another");
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		await_record(kinds[i]);
	SUPPORT_CHECK(strstr(text, "\"error\":\"SECPOOL_E_UNKNOWN_TENANT\""));
	SUPPORT_CHECK(strstr(text, "\"tenant\":\"alpha\""));
}

/* ---- the command ---- */

static void expect_good(void)
{
	if (support_cli(text, sizeof text, "audit", "verify", "--anchor",
		    support_path("state/anchor.pem"), "--receipt", receipt, NULL) != 0)
		support_fail("not good: %s", text);
}

static void copy(const char *from, const char *to, size_t less, size_t changed_at)
{
	char *bytes = NULL;
	size_t count = 0;

	SUPPORT_OK(os_read_file(from, TEXT_MOST, &bytes, &count));
	SUPPORT_CHECK(changed_at < count && less < count);
	if (changed_at > 0)
		bytes[changed_at] ^= 1;
	SUPPORT_OK(os_write_file_durable(to, bytes, count - less, 0600));
	free(bytes);
}

static void expect_bad(const char *words)
{
	SUPPORT_CHECK(
		support_cli(text, sizeof text, "audit", "verify", "--audit", file, NULL) == 1);
	if (!strstr(text, words))
		support_fail("no '%s' in %s", words, text);
}

static size_t size_of(const char *path)
{
	struct stat status;

	SUPPORT_CHECK(stat(path, &status) == 0);
	return (size_t)status.st_size;
}

static void changes_are_found(void)
{
	size_t bytes = size_of(audit);

	copy(anchor, beside, 0, 0);
	copy(audit, file, 0, 0);
	SUPPORT_CHECK(
		support_cli(text, sizeof text, "audit", "verify", "--audit", file, NULL) == 0);
	copy(audit, file, 0, bytes / 2);
	expect_bad("record ");
	copy(audit, file, 1, 0);
	expect_bad("no whole record");
	copy(audit, file, bytes - 3000, 0);
	expect_bad("");
	copy(audit, file, 0, 0);
	copy(anchor, beside, 0, 30);
	expect_bad("the anchor");
	SUPPORT_CHECK(unlink(beside) == 0);
	expect_bad("without the anchor");
	SUPPORT_CHECK(unlink(file) == 0);
	expect_bad("");
}

static void goes_on_after_a_kill(void)
{
	SUPPORT_CHECK(may_be("alpha"));
	support_kill_daemon("keymgrd");
	expect_good();
	support_up(2, "16M", NULL);
	SUPPORT_CHECK(may_be("alpha"));
	expect_good();
}

/* The audit alone on a tmpfs of a few pages; the directory and the logs keep their room. */
static void mount_audit(void)
{
	support_kill_daemon("keymgrd");
	SUPPORT_OK(os_make_dir(small, 0700));
	SUPPORT_CHECK(mount("none", small, "tmpfs", 0, "size=64k") == 0);
	copy(audit, there, 0, 0);
	SUPPORT_CHECK(mount(there, audit, NULL, MS_BIND, NULL) == 0);
	support_up(2, "16M", NULL);
}

static void unmount_audit(void)
{
	support_kill_daemon("keymgrd");
	SUPPORT_CHECK(umount2(audit, MNT_DETACH) == 0);
	copy(there, audit, 0, 0);
	SUPPORT_CHECK(umount2(small, MNT_DETACH) == 0 && rmdir(small) == 0);
	support_up(2, "16M", NULL);
}

static enum secpool_error create(int fd, uint64_t *ret_region)
{
	struct msg request = {.type = MSG_REGION_CREATE}, answer;
	enum secpool_error error;
	int key = -1;

	request.u.region_create.bytes = PAGE;
	request.u.region_create.page_bytes = PAGE;
	request.u.region_create.data = request.u.region_create.lanes = 1;
	request.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	error = support_ask(fd, &request, MSG_REGION_CREATED, &answer, &key);
	os_close(&key);
	if (!error)
		*ret_region = answer.u.region_created.region;
	return error;
}

static enum secpool_error end_region(int fd, uint64_t region)
{
	struct msg request = {.type = MSG_REGION_RELEASE}, answer;

	request.u.region_release.region = region;
	return support_ask(fd, &request, MSG_RECEIPT, &answer, NULL);
}

/* A program with a region, until it is killed. */
static int have_region(void *arg)
{
	uint64_t region;
	int fd;

	SUPPORT_OK(support_session("alpha", 4 << 20, &fd));
	SUPPORT_OK(create(fd, &region));
	SUPPORT_CHECK(write(*(int *)arg, "x", 1) == 1);
	pause();
	return 1;
}

static pid_t start_program(void)
{
	int fds[2];
	char byte;
	pid_t pid;

	SUPPORT_CHECK(pipe(fds) == 0);
	pid = support_fork(have_region, &fds[1]);
	SUPPORT_CHECK(read(fds[0], &byte, 1) == 1);
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static bool sessions_left(void *arg)
{
	const char *row, *sessions;

	support_cli(text, sizeof text, "tenant", "list", "--json", NULL);
	row = strstr(text, "\"alpha\"");
	sessions = row ? strstr(row, "\"sessions\":") : NULL;
	return sessions && atoi(sessions + strlen("\"sessions\":")) == *(int *)arg;
}

static void expect_refused(enum secpool_error error)
{
	if (error != SECPOOL_E_NO_SPACE || !strstr(err_detail(), "audit record can't be kept"))
		support_fail("not refused for the audit: %s: %s", err_name(error), err_detail());
}

/* What needs a record is refused, what needs none goes on, and a program's end waits. */
static void lives_without_room(int fd, uint64_t region, const pid_t *program, pid_t daemon)
{
	struct msg places = {.type = MSG_EXTENTS_GET}, answer;
	uint64_t other;

	expect_refused(create(fd, &other));
	expect_refused(end_region(fd, region));
	SUPPORT_CHECK(kill(*program, SIGKILL) == 0);
	support_join(*program, WAIT_MS);
	SUPPORT_CHECK(support_wait(sessions_left, &(int){1}, WAIT_MS));
	/* it has tried by now, and tries again every second */
	clock_sleep_ns(2 * CLOCK_NS_PER_S);
	support_wait_regions(2, WAIT_MS);
	places.u.extents_get.region = region;
	SUPPORT_OK(support_ask(fd, &places, MSG_EXTENTS, &answer, NULL));
	SUPPORT_CHECK(answer.u.extents.count == 1 && support_daemon("keymgrd") == daemon);
}

static void full_disk_refuses(void)
{
	static const char bytes[PAGE];
	enum secpool_error error = SECPOOL_OK;
	int fd, client = -1, live, more[SHORT_RECORDS];
	pid_t program, daemon;
	uint64_t region;

	mount_audit();
	daemon = support_daemon("keymgrd");
	program = start_program();
	SUPPORT_OK(support_session("alpha", 4 << 20, &live));
	SUPPORT_OK(create(live, &region));
	for (int i = 0; i < SHORT_RECORDS; i++)
		SUPPORT_OK(support_session("alpha", 4 << 20, &more[i]));
	fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	SUPPORT_CHECK(fd >= 0 && may_be("alpha"));
	while (write(fd, bytes, sizeof bytes) > 0)
		;
	close(fd);
	/* the file's last page may have room */
	for (int i = 0; i < SESSIONS_MOST && !error; i++) {
		error = support_session("alpha", 4 << 20, &client);
		os_close(&client);
	}
	SUPPORT_CHECK(error == SECPOOL_E_NO_SPACE);
	if (!strstr(err_detail(), "audit record can't be kept"))
		support_fail("no reason in: %s", err_detail());
	/* the records of their ends are shorter than any that follows: there is no room for one then */
	for (int i = 0; i < SHORT_RECORDS; i++)
		os_close(&more[i]);
	SUPPORT_CHECK(support_wait(sessions_left, &(int){2}, WAIT_MS));
	lives_without_room(live, region, &program, daemon);
	SUPPORT_CHECK(unlink(filler) == 0);
	SUPPORT_OK(support_session("alpha", 4 << 20, &client));
	os_close(&client);
	SUPPORT_OK(end_region(live, region));
	support_wait_regions(0, WAIT_MS);
	SUPPORT_CHECK(support_daemon("keymgrd") == daemon);
	os_close(&live);
	unmount_audit();
	expect_good();
	/* the refusals, and perhaps the end of the session before, could not be recorded: they are counted */
	SUPPORT_CHECK(strstr(text, "not kept"));
}

/* A mount namespace of this test's own, where that is allowed; the daemons are started in it. */
static bool may_mount(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void place(char to[static 256], const char *name)
{
	SUPPORT_CHECK(snprintf(to, 256, "%s/%s", support_runtime_dir(), name) < 256);
}

int main(void)
{
	bool mounts = may_mount();

	place(audit, "state/audit");
	place(anchor, "state/audit.anchor");
	place(file, "copy");
	place(beside, "copy.anchor");
	place(small, "small");
	place(there, "small/audit");
	place(filler, "small/filler");
	place(receipt, "receipt");
	support_up(2, "16M", NULL);
	use_it();
	no_key_is_in_it();
	goes_on_after_a_kill();
	if (mounts)
		full_disk_refuses();
	all_is_recorded();
	expect_good();
	changes_are_found();
	no_key_is_in_it();
	SUPPORT_CHECK(unlink(receipt) == 0);
	support_down();
	return 0;
}
