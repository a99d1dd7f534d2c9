/* SPDX-License-Identifier: Apache-2.0 */
/* What the enclave starts from: another TPM, none, other measurements, a store whose root key is missing or damaged. Each refuses with its reason. timeout: 120 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "enclave/receipt.h"
#include "enclave/secmem.h"
#include "tests/security/enclave_rig.h"

enum { FLIPS = 12 };

static struct rig rig;

/* A store that was provisioned, and its enclave ended. */
static int provisioned(void **state)
{
	(void)state;
	rig_init(&rig);
	rig_ok(rig_start(&rig), "first start");
	assert_true(rig.enclave.provisioned);
	enclave_stop(&rig.enclave);
	return 0;
}

static int fresh(void **state)
{
	(void)state;
	rig_init(&rig);
	return 0;
}

static int end(void **state)
{
	(void)state;
	rig_done(&rig);
	return 0;
}

static void path_of(const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", rig.state_dir, name);
}

static bool exists(const char *name)
{
	char path[256];

	path_of(name, path);
	return access(path, F_OK) == 0;
}

static void remove_file(const char *name)
{
	char path[256];

	path_of(name, path);
	assert_int_equal(unlink(path), 0);
}

/* A failed start leaves no process: the TPM is our only child. */
static void expect_refused(enum secpool_error got, enum secpool_error want, const char *word)
{
	char path[64], *text = NULL, only[32];
	size_t bytes = 0;

	assert_int_equal(got, want);
	if (!strstr(err_detail(), word))
		fail_msg("'%s' does not name '%s'", err_detail(), word);
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	rig_ok(os_read_file(path, 4096, &text, &bytes), "children");
	snprintf(only, sizeof only, "%d ", (int)rig.host.pid);
	assert_string_equal(text, only);
	free(text);
	assert_int_equal(rig.enclave.guardian, 0);
}

static void comes_back_with_its_keys(void **state)
{
	struct msg open = {.type = MSG_ENC_SESSION_OPEN}, first, second;
	int client = -1, front = -1;

	(void)state;
	rig_ok(rig_start(&rig), "start");
	assert_false(rig.enclave.provisioned);
	rig_connect(&rig, &client, &front);
	rig_ok(rig_session(&rig, "mine", &front, &first), "session");
	os_close(&client);
	enclave_stop(&rig.enclave);
	rig_ok(rig_start_with(&rig, 0, rig.host.where, true), "start again");
	MSG_SET(open.u.enc_session_open.tenant, "mine");
	open.u.enc_session_open.wrapped_bytes = first.u.enc_session_opened.wrapped_bytes;
	memcpy(open.u.enc_session_open.wrapped, first.u.enc_session_opened.wrapped,
		sizeof open.u.enc_session_open.wrapped);
	rig_connect(&rig, &client, &front);
	open.u.enc_session_open.wrapped[9] ^= 1;
	rig_ok(enclave_exchange(rig.enclave.socket, &rig.enclave.audit, &open, &front, 1,
		       MSG_ENC_SESSION_OPENED, &second, RIG_WAIT_NS),
		"changed key");
	assert_int_equal(sock_answer_error(&second), SECPOOL_E_KEY_GONE);
	open.u.enc_session_open.wrapped[9] ^= 1;
	rig_ok(enclave_exchange(rig.enclave.socket, &rig.enclave.audit, &open, &front, 1,
		       MSG_ENC_SESSION_OPENED, &second, RIG_WAIT_NS),
		"the wrapped key");
	assert_int_equal(second.type, MSG_ENC_SESSION_OPENED);
	assert_memory_equal(second.u.enc_session_opened.wrapped, first.u.enc_session_opened.wrapped,
		first.u.enc_session_opened.wrapped_bytes);
	os_close(&front);
	os_close(&client);
}

/* What the enclave signs is checked by the anchor that it wrote, also after a restart. */
static void receipts_verify(void **state)
{
	struct msg ask = {.type = MSG_ENC_RECEIPT}, answer;
	char path[256], *anchor = NULL;
	struct receipt_facts facts;
	size_t bytes = 0;

	(void)state;
	path_of("anchor.pem", path);
	rig_ok(os_read_file(path, 4096, &anchor, &bytes), "anchor.pem");
	for (unsigned i = 0; i < 2; i++) {
		rig_ok(rig_start(&rig), "start");
		ask.u.enc_receipt.region = 5 + i;
		MSG_SET(ask.u.enc_receipt.tenant, "mine");
		ask.u.enc_receipt.readback = MSG_READBACK_MATCHED;
		ask.u.enc_receipt.client = MSG_CLIENT_ACKNOWLEDGED;
		rig_ok(rig_ask(&rig, &ask, MSG_RECEIPT, &answer), "receipt");
		rig_ok(receipt_verify(answer.u.receipt.document, strlen(answer.u.receipt.document),
			       anchor, &facts),
			"verify");
		assert_int_equal(facts.region, 5 + i);
		assert_false(facts.durable);
		enclave_stop(&rig.enclave);
	}
	free(anchor);
}

static void no_tpm(void **state)
{
	(void)state;
	expect_refused(rig_start_with(&rig, 0, "unix:/nonexistent/tpm.sock", false), SECPOOL_E_TPM,
		"/nonexistent/tpm.sock");
	expect_refused(rig_start_with(&rig, 0, "cmd:true", false), SECPOOL_E_INVALID, "cmd:true");
	assert_false(exists("root.sealed"));
}

static void another_tpm(void **state)
{
	struct vtpm other;
	enum secpool_error error;

	(void)state;
	vtpm_init(&other);
	vtpm_start(&other, (const char *const[]){"--provision", NULL});
	error = rig_start_with(&rig, 0, other.where, true);
	vtpm_end(&other, SIGTERM);
	expect_refused(error, SECPOOL_E_TPM, "TPM");
	vtpm_done(&other);
}

static void other_measurements(void **state)
{
	struct tpm *tpm = NULL;

	(void)state;
	rig_ok(tpm_open(rig.host.where, &tpm), "TPM");
	rig_ok(tpm_extend(tpm, 4, "another boot loader"), "extend");
	tpm_close(tpm);
	expect_refused(rig_start(&rig), SECPOOL_E_TPM, "PCR");
}

static void missing_root_is_never_made_again(void **state)
{
	(void)state;
	remove_file("root.sealed");
	expect_refused(
		rig_start_with(&rig, 0, rig.host.where, true), SECPOOL_E_STORE, "root.sealed");
	expect_refused(rig_start(&rig), SECPOOL_E_STORE, "signer.wrapped");
	remove_file("signer.wrapped");
	expect_refused(
		rig_start_with(&rig, 0, rig.host.where, true), SECPOOL_E_STORE, "directory.db");
	assert_false(exists("root.sealed"));
	assert_false(exists("signer.wrapped"));
}

static void flipped_root(void **state)
{
	char path[256], *blob = NULL;
	size_t bytes = 0;

	(void)state;
	path_of("root.sealed", path);
	rig_ok(os_read_file(path, 4096, &blob, &bytes), "root.sealed");
	for (size_t i = 0; i < FLIPS; i++) {
		blob[i * bytes / FLIPS] ^= 0x10;
		rig_ok(os_write_file_durable(path, blob, bytes, 0600), "write");
		assert_int_equal(rig_start_with(&rig, 0, rig.host.where, true), SECPOOL_E_TPM);
		blob[i * bytes / FLIPS] ^= 0x10;
	}
	rig_ok(os_write_file_durable(path, blob, bytes / 2, 0600), "truncate");
	expect_refused(rig_start(&rig), SECPOOL_E_TPM, "");
	rig_ok(os_write_file_durable(path, blob, 0, 0600), "empty");
	expect_refused(rig_start(&rig), SECPOOL_E_STORE, "root.sealed");
	rig_ok(os_write_file_durable(path, blob, bytes, 0600), "write");
	rig_ok(rig_start(&rig), "the right one opens");
	free(blob);
}

static void other_damaged_files(void **state)
{
	static const char *const names[] = {"signer.wrapped", "host.ak"};
	char path[256], *text = NULL;
	size_t bytes = 0;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		path_of(names[i], path);
		rig_ok(os_read_file(path, 4096, &text, &bytes), names[i]);
		text[bytes / 2] ^= 1;
		rig_ok(os_write_file_durable(path, text, bytes, 0600), "write");
		enum secpool_error error = rig_start(&rig);
		assert_true(error == SECPOOL_E_STORE || error == SECPOOL_E_TPM);
		text[bytes / 2] ^= 1;
		rig_ok(os_write_file_durable(path, text, bytes, 0600), "write");
		free(text);
	}
	path_of("anchor.pem", path);
	rig_ok(os_write_file_durable(path, "another", 7, 0644), "write");
	expect_refused(rig_start(&rig), SECPOOL_E_STORE, "anchor.pem");
	remove_file("host.ak");
	expect_refused(rig_start(&rig), SECPOOL_E_STORE, "host.ak");
}

static void bad_policy(void **state)
{
	struct enclave_options options = {.policy_fd = memfd_create("policy", MFD_CLOEXEC),
		.policy_name = "bad.yaml",
		.tpm = rig.host.where,
		.state_dir = rig.state_dir,
		.socket_path = rig.socket_path};

	(void)state;
	rig_ok(os_write_all(options.policy_fd, "version: 99\n", 12), "policy");
	expect_refused(enclave_start(&options, &rig.enclave), SECPOOL_E_POLICY, "bad.yaml");
	os_close(&options.policy_fd);
	options.policy_fd = 0;
	expect_refused(enclave_start(&options, &rig.enclave), SECPOOL_E_INVALID, "stderr");
}

/* State files are for their owner only. */
static void files_are_private(void **state)
{
	static const char *const names[] = {"root.sealed", "signer.wrapped", "host.ak"};
	struct stat file;
	char path[256];

	(void)state;
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		path_of(names[i], path);
		assert_int_equal(stat(path, &file), 0);
		assert_int_equal(file.st_mode & 0777, 0600);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(comes_back_with_its_keys, provisioned, end),
		cmocka_unit_test_setup_teardown(receipts_verify, provisioned, end),
		cmocka_unit_test_setup_teardown(no_tpm, fresh, end),
		cmocka_unit_test_setup_teardown(another_tpm, provisioned, end),
		cmocka_unit_test_setup_teardown(other_measurements, provisioned, end),
		cmocka_unit_test_setup_teardown(missing_root_is_never_made_again, provisioned, end),
		cmocka_unit_test_setup_teardown(flipped_root, provisioned, end),
		cmocka_unit_test_setup_teardown(other_damaged_files, provisioned, end),
		cmocka_unit_test_setup_teardown(bad_policy, fresh, end),
		cmocka_unit_test_setup_teardown(files_are_private, provisioned, end),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	rig_ok(secmem_init(SECMEM_ALLOW_LOCKED), "secret memory");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
