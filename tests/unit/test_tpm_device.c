/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tpm.h over the kernel's device, with a pseudo-terminal in its place: a character device that is opened by name, read, written and polled, with a process behind it that passes commands on to secpool-vtpm. The linker puts the
 * terminal's name where /dev/tpmrm0 is asked for, and a shorter deadline.
 */
#include "tests/unit/tpm_fixture.h"

#include <termios.h>

#include "enclave/tcti.h"

enum { TIMEOUT_MS = 4000, FRAME_BYTES = 4096, HEADER_BYTES = 10 };

static char slave[64];
static int master = -1;
static pid_t bridge;

enum secpool_error __real_tcti_open_device(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti);
enum secpool_error __wrap_tcti_open_device(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti);
enum secpool_error __wrap_tcti_open_device(
	const char *path, unsigned timeout_ms, TSS2_TCTI_CONTEXT **ret_tcti)
{
	assert_string_equal(path, "/dev/tpmrm0");
	assert_int_equal(timeout_ms, 0); /* TCTI_DEVICE_TIMEOUT_MS, which is too long for a test */
	return __real_tcti_open_device(slave, TIMEOUT_MS, ret_tcti);
}

/* ---- what is behind the device ---- */

static void read_exactly(int fd, uint8_t *bytes, size_t count)
{
	for (size_t done = 0; done < count;) {
		ssize_t got = read(fd, bytes + done, count - done);
		if (got <= 0 && errno != EINTR)
			_exit(0);
		if (got > 0)
			done += (size_t)got;
	}
}

/* One command or answer from one side to the other. */
static void pass_on(int from, int to)
{
	uint8_t frame[FRAME_BYTES];
	size_t bytes;

	read_exactly(from, frame, HEADER_BYTES);
	bytes = (size_t)frame[4] << 8 | frame[5];
	if (bytes < HEADER_BYTES || bytes > sizeof frame)
		_exit(1);
	read_exactly(from, frame + HEADER_BYTES, bytes - HEADER_BYTES);
	if (os_write_all(to, frame, bytes))
		_exit(1);
}

static void make_device(void)
{
	struct termios raw;
	int fd;

	master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(master >= 0);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, slave, sizeof slave), 0);
	fd = open(slave, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(tcgetattr(fd, &raw), 0);
	cfmakeraw(&raw);
	assert_int_equal(tcsetattr(fd, TCSANOW, &raw), 0);
	bridge = fork();
	assert_true(bridge >= 0);
	if (bridge == 0) {
		int to = vtpm_connect(&vtpm);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* fd stays open in here, so that the terminal does not hang up between two users */
		for (;;) {
			pass_on(master, to);
			pass_on(to, master);
		}
	}
	close(fd);
}

static int set_up(void **state)
{
	setup(state);
	make_device();
	return 0;
}

static int tear_down(void **state)
{
	kill(bridge, SIGKILL);
	waitpid(bridge, NULL, 0);
	os_close(&master);
	return teardown(state);
}

static struct tpm *open_device(void)
{
	struct tpm *tpm = NULL;
	enum secpool_error error = tpm_open("device:/dev/tpmrm0", &tpm);

	if (error)
		print_error("%s\n", err_detail());
	assert_int_equal(error, SECPOOL_OK);
	return tpm;
}

/* Stopped for good when this returns. */
static void hang(void)
{
	int status;

	kill(bridge, SIGSTOP);
	assert_int_equal(waitpid(bridge, &status, WUNTRACED), bridge);
	assert_true(WIFSTOPPED(status));
}

/* ---- the tests ---- */

static void serves_as_the_socket_does(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], auth[TPM_COUNTER_AUTH_BYTES] = {1};
	struct tpm *tpm = open_device();
	size_t bytes = seal(tpm, blob);
	uint64_t value = 0, next = 0;
	char name[64], target[64] = "";
	uint32_t index = 0;

	(void)state;
	expect_unsealed(tpm, blob, bytes);
	assert_int_equal(tpm_counter_make(tpm, auth, &index, &value), SECPOOL_OK);
	assert_int_equal(tpm_counter_step(tpm, index, auth, &next), SECPOOL_OK);
	assert_true(next == value + 1);
	/* what the enclave's filter of system calls must know: without it the first generation would end the enclave */
	snprintf(name, sizeof name, "/proc/self/fd/%d", tpm_descriptor(tpm));
	assert_true(readlink(name, target, sizeof target - 1) > 0);
	assert_string_equal(target, slave);
	tpm_close(tpm);
	tpm = open_device();
	expect_unsealed(tpm, blob, bytes);
	tpm_close(tpm);
}

static void hung_device_is_an_error(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], got[SECRET_BYTES];
	struct tpm *tpm = open_device();
	size_t bytes = seal(tpm, blob);
	uint64_t value, began_ns;

	(void)state;
	hang();
	assert_int_equal(tpm_unseal(tpm, NULL, blob, bytes, got, SECRET_BYTES), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "/dev/tpmrm0"));
	assert_non_null(strstr(err_detail(), "no answer in time"));
	/* it is not asked again, and not waited for again: not even to say good-bye */
	began_ns = clock_now_ns();
	assert_int_equal(tpm_counter_read(tpm, 0x01800000, &value), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "dropped"));
	tpm_close(tpm);
	assert_true(clock_now_ns() - began_ns < (uint64_t)TIMEOUT_MS * CLOCK_NS_PER_MS);
}

static void hung_before_it_is_opened(void **state)
{
	struct tpm *tpm = NULL;

	(void)state;
	hang();
	assert_int_equal(tpm_open("device:/dev/tpmrm0", &tpm), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "/dev/tpmrm0"));
	assert_non_null(strstr(err_detail(), "no answer in time"));
	assert_null(tpm);
}

static void lost_device_is_an_error(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES], got[SECRET_BYTES];
	struct tpm *tpm = open_device();
	size_t bytes = seal(tpm, blob);

	(void)state;
	kill(bridge, SIGKILL);
	waitpid(bridge, NULL, 0);
	os_close(&master); /* the terminal hangs up */
	assert_int_equal(tpm_unseal(tpm, NULL, blob, bytes, got, SECRET_BYTES), SECPOOL_E_TPM);
	tpm_close(tpm);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(serves_as_the_socket_does),
		TEST(hung_device_is_an_error),
		TEST(hung_before_it_is_opened),
		TEST(lost_device_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
