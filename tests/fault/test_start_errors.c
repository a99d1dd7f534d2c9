/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client is told when something that it needs is not there: no userfaultfd, no secret memory, no locked memory, no space, no daemon,
 * too few devices, options that do not exist yet. Each a clear error, nothing left behind, and no pool that works by half. The kernel's
 * refusals are made by a seccomp filter in the child. timeout: 120
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <linux/userfaultfd.h>
#include <unistd.h>

#include "tests/support/support.h"

enum { LOCAL_BYTES = 4 << 20, MIB = 1 << 20, WAIT_MS = 20000 };

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* linux/userfaultfd.h since 6.1 */
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

static enum secpool_error try_open(const char *tenant, struct secpool **ret_pool)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = LOCAL_BYTES};

	options.runtime_dir = support_runtime_dir();
	return secpool_open(tenant, &options, ret_pool);
}

/* The error came, with words that say something. */
static void expect(enum secpool_error got, enum secpool_error wanted, const char *what)
{
	if (got != wanted)
		support_fail("%s: %s (%s) instead of error %d", what, secpool_strerror(got),
			secpool_error_detail(), wanted);
	if (strlen(secpool_error_detail()) < 10)
		support_fail("%s: the error says nothing: '%s'", what, secpool_error_detail());
	printf("%s: %s\n", what, secpool_error_detail());
}

static enum secpool_error try_region(
	struct secpool *pool, const struct secpool_region_options *given)
{
	struct secpool_region_options options = *given;
	struct secpool_region *region = NULL;
	enum secpool_error error;

	options.size = sizeof options;
	error = secpool_region_create(pool, &options, &region);
	SUPPORT_CHECK(error || region);
	return error;
}

static void deny(uint32_t action, int call, bool has_command, uint64_t command)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	struct scmp_arg_cmp compare = SCMP_A1(SCMP_CMP_EQ, command);

	SUPPORT_CHECK(filter != NULL);
	SUPPORT_CHECK((has_command ? seccomp_rule_add_array(filter, action, call, 1, &compare)
				   : seccomp_rule_add_array(filter, action, call, 0, NULL)) == 0);
	SUPPORT_CHECK(seccomp_load(filter) == 0);
	seccomp_release(filter);
}

static int without_userfaultfd(void *arg)
{
	struct secpool *pool = NULL;

	(void)arg;
	/* neither the call nor the device that keymgrd passes */
	deny(SCMP_ACT_ERRNO(EPERM), SYS_userfaultfd, false, 0);
	deny(SCMP_ACT_ERRNO(EPERM), SYS_ioctl, true, USERFAULTFD_IOC_NEW);
	expect(try_open("alpha", &pool), SECPOOL_E_NO_FAULTFD, "no userfaultfd");
	SUPPORT_CHECK(pool == NULL);
	return 0;
}

static int without_secret_memory(void *arg)
{
	struct secpool *pool = NULL;
	struct secpool_region_options options = {.bytes = MIB};
	enum secpool_error error;

	(void)arg;
	deny(SCMP_ACT_ERRNO(ENOSYS), SYS_memfd_secret, false, 0);
	error = try_open("alpha", &pool);
	if (!error)
		error = try_region(pool, &options);
	expect(error, SECPOOL_E_NO_SECRET_MEMORY, "no secret memory");
	return 0;
}

/* The daemon raises the limit for its clients; here the client takes it back, as a user who may not lock more. */
static int without_locked_memory(void *arg)
{
	struct passwd *nobody = getpwnam("nobody");
	struct rlimit none = {0, 0};
	struct secpool *pool = NULL;
	struct secpool_region_options options = {.bytes = 8 * MIB};
	enum secpool_error error;

	(void)arg;
	SUPPORT_CHECK(nobody != NULL);
	SUPPORT_CHECK(setgroups(0, NULL) == 0 && setgid(nobody->pw_gid) == 0 &&
		      setuid(nobody->pw_uid) == 0);
	error = try_open("beta", &pool);
	/* where keymgrd may not raise limits (no CAP_SYS_RESOURCE) the user's own limit is met already here */
	if (!error) {
		SUPPORT_CHECK(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
		error = try_region(pool, &options);
	}
	expect(error, SECPOOL_E_NO_LOCKED_MEMORY, "no locked memory");
	return 0;
}

static int without_space(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region_options large = {.bytes = 512ul * MIB}, fits = {.bytes = 32 * MIB};
	struct secpool_region_options most = {.bytes = 60ul * MIB};

	(void)arg;
	expect(try_region(pool, &large), SECPOOL_E_NO_SPACE, "larger than all devices");
	SUPPORT_CHECK(try_region(pool, &most) == SECPOOL_OK);
	most.redundancy = SECPOOL_REDUNDANCY_MIRROR;
	expect(try_region(pool, &most), SECPOOL_E_NO_SPACE, "devices are full");
	/* nothing was left behind by those that failed: what is free can be had */
	SUPPORT_CHECK(try_region(pool, &fits) == SECPOOL_OK);
	secpool_close(pool);
	return 0;
}

static int unavailable_options(void *arg)
{
	struct secpool_options odd_mode = {
		.size = sizeof odd_mode, .fault_mode = (enum secpool_fault_mode)9};
	struct secpool_region_options code = {
		.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_EC, .data = 15, .parity = 2};
	struct secpool_region_options refill = {.bytes = MIB, .on_loss = SECPOOL_ON_LOSS_REFILL};
	struct secpool_region_options odd = {.bytes = MIB, .page_bytes = 5000};
	struct secpool_region_options none = {.bytes = 0};
	struct secpool *pool = NULL;

	(void)arg;
	odd_mode.runtime_dir = support_runtime_dir();
	expect(secpool_open("alpha", &odd_mode, &pool), SECPOOL_E_INVALID, "odd fault mode");
	SUPPORT_CHECK(pool == NULL);
	pool = support_open("alpha", LOCAL_BYTES);
	expect(try_region(pool, &code), SECPOOL_E_INVALID, "erasure code");
	expect(try_region(pool, &refill), SECPOOL_E_INVALID, "refill");
	expect(try_region(pool, &odd), SECPOOL_E_INVALID, "odd page size");
	expect(try_region(pool, &none), SECPOOL_E_INVALID, "no bytes");
	/* more copies than the policy allows */
	struct secpool_region_options copies = {
		.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_MIRROR, .copies = 4};
	expect(try_region(pool, &copies), SECPOOL_E_DENIED, "mirror:4");
	secpool_close(pool);
	return 0;
}

static int with_one_device(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region_options mirror = {
		.bytes = MIB, .redundancy = SECPOOL_REDUNDANCY_MIRROR};
	enum secpool_error error;

	(void)arg;
	error = try_region(pool, &mirror);
	SUPPORT_CHECK(error == SECPOOL_E_NOT_ATTESTED || error == SECPOOL_E_NO_SPACE);
	expect(error, error, "mirror with one device");
	secpool_close(pool);
	return 0;
}

static int without_daemon(void *arg)
{
	struct secpool *pool = NULL;

	(void)arg;
	expect(try_open("alpha", &pool), SECPOOL_E_DAEMON_GONE, "no daemon");
	SUPPORT_CHECK(pool == NULL);
	return 0;
}

static void in_child(int (*work)(void *arg))
{
	SUPPORT_CHECK(support_join(support_fork(work, NULL), WAIT_MS) == 0);
}

int main(void)
{
	in_child(without_daemon);
	support_up(2, "64M", NULL);
	in_child(without_userfaultfd);
	in_child(without_secret_memory);
	if (getuid() == 0)
		in_child(without_locked_memory);
	in_child(unavailable_options);
	support_wait_regions(0, WAIT_MS);
	in_child(without_space);
	support_wait_regions(0, WAIT_MS);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev1", NULL) == 0);
	in_child(with_one_device);
	support_down();
	in_child(without_daemon);
	return 0;
}
