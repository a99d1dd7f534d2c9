/* SPDX-License-Identifier: Apache-2.0 */
/* identity.json: what is taken, and each way of being wrong. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "hotplug/identity.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

#define GOOD                                                                                       \
	"{\"id\":\"dev0\",\"serial\":\"S-1\",\"bytes\":4194304,\"firmware\":\"secpool-emulated-1." \
	"0\","                                                                                     \
	"\"domain\":\"domain0\",\"kind\":\"emulated\"}"

#define WITH_LATENCY(ns)                                                                           \
	"{\"id\":\"dev0\",\"serial\":\"S\",\"bytes\":4194304,\"firmware\":\"F\","                  \
	"\"domain\":\"d\",\"kind\":\"emulated\",\"latency_ns\":" ns "}"

static enum secpool_error parse(const char *text, struct identity *identity)
{
	return identity_parse(text, strlen(text), "f.json", "dev0", identity);
}

static void good(void **state)
{
	struct identity identity;

	(void)state;
	assert_int_equal(parse(GOOD, &identity), SECPOOL_OK);
	assert_string_equal(identity.id, "dev0");
	assert_string_equal(identity.serial, "S-1");
	assert_string_equal(identity.firmware, "secpool-emulated-1.0");
	assert_string_equal(identity.domain, "domain0");
	assert_int_equal(identity.bytes, 4194304);
	assert_int_equal(identity.latency_ns, 0);
	assert_int_equal(parse("  " GOOD " \n", &identity), SECPOOL_OK);
}

static void latency(void **state)
{
	struct identity identity;

	(void)state;
	assert_int_equal(parse(WITH_LATENCY("1"), &identity), SECPOOL_OK);
	assert_int_equal(identity.latency_ns, 1);
	assert_int_equal(parse(WITH_LATENCY("1000000000"), &identity), SECPOOL_OK);
	assert_int_equal(identity.latency_ns, 1000000000);
	for (size_t i = 0; i < 5; i++) {
		static const char *const texts[] = {WITH_LATENCY("0"), WITH_LATENCY("-3"),
			WITH_LATENCY("1000000001"), WITH_LATENCY("\"3\""), WITH_LATENCY("1.5")};

		assert_int_equal(parse(texts[i], &identity), SECPOOL_E_INVALID);
		assert_non_null(strstr(err_detail(), "latency_ns"));
		assert_int_equal(identity.latency_ns, 1000000000);
	}
}

/* Each one refused, with a sentence that names the file and the word, and nothing written. */
static void bad(void **state)
{
	static const struct {
		const char *from, *to, *word;
	} cases[] = {
		{"\"dev0\"", "\"dev1\"", "id"},
		{"\"dev0\"", "\"../dev0\"", "id"},
		{"\"dev0\"", "7", "id"},
		{"\"dev0\"", "\"\"", "id"},
		{"\"dev0\"", "\"dev0\\u0000x\"", "id"},
		{"\"dev0\"", "\"d2345678901234567890123456789012\"", "id"},
		{"\"S-1\"", "\"a b\"", "serial"},
		{"\"S-1\"", "\"\\u00e4\"", "serial"},
		{"\"S-1\"", "null", "serial"},
		{"\"S-1\"", "\"1234567890123456789012345678901234567890123456789012345678901234\"",
			"serial"},
		{"4194304", "4194305", "bytes"},
		{"4194304", "0", "bytes"},
		{"4194304", "-2097152", "bytes"},
		{"4194304", "1099513724928", "bytes"}, /* 1 TiB + 2 MiB */
		{"4194304", "99999999999999999999999999", "bytes"},
		{"4194304", "4194304.0", "bytes"},
		{"4194304", "\"4M\"", "bytes"},
		{"secpool-emulated-1.0", "x\\n0:y", "firmware"},
		{"firmware", "firmwares", "firmware"},
		{"domain0", "a/b", "domain"},
		{"\"emulated\"", "[]", "kind"},
		{"{", "", "JSON"},
		{"}", "", "JSON"},
		{"}", "} x", "JSON"},
		{"}", "}{}", "JSON"},
		{"\"dev0\"", "'dev0'", "JSON"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct identity identity, before;
		char text[1024], *at;

		snprintf(text, sizeof text, "%s", GOOD);
		at = strstr(text, cases[i].from);
		assert_non_null(at);
		snprintf(at, sizeof text - (size_t)(at - text), "%s%s", cases[i].to,
			strstr(GOOD, cases[i].from) + strlen(cases[i].from));
		memset(&identity, 0x5a, sizeof identity);
		before = identity;
		if (parse(text, &identity) != SECPOOL_E_INVALID)
			fail_msg("taken: %s", text);
		assert_memory_equal(&identity, &before, sizeof identity);
		assert_non_null(strstr(err_detail(), "f.json"));
		if (!strstr(err_detail(), cases[i].word))
			fail_msg("%s: %s", text, err_detail());
	}
}

static void other_kind(void **state)
{
	struct identity identity;
	char text[1024];

	(void)state;
	snprintf(text, sizeof text, "%.*s\"nvme\"}", (int)(strstr(GOOD, "\"emulated\"") - GOOD),
		GOOD);
	assert_int_equal(parse(text, &identity), SECPOOL_E_UNSUPPORTED);
	assert_non_null(strstr(err_detail(), "nvme"));
	snprintf(text, sizeof text, "%.*s\"cxl\"}", (int)(strstr(GOOD, "\"emulated\"") - GOOD),
		GOOD);
	assert_int_equal(parse(text, &identity), SECPOOL_OK);
	assert_int_equal(identity.kind, MSG_KIND_CXL);
}

/* What is written is read back, in a folder of its own. */
static void saved(void **state)
{
	struct identity made = {.id = "cxl-1234",
				.serial = "1234",
				.firmware = "FW_1",
				.domain = "rack-7",
				.bytes = 8 << 20,
				.kind = MSG_KIND_CXL,
				.tpm = IDENTITY_TPM_SWTPM,
				.latency_ns = 350},
			found;
	char folder[] = "/tmp/identity.XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_int_equal(identity_save(folder, &made), SECPOOL_OK);
	assert_int_equal(identity_load(folder, "cxl-1234", &found), SECPOOL_OK);
	assert_string_equal(found.serial, made.serial);
	assert_string_equal(found.firmware, made.firmware);
	assert_string_equal(found.domain, made.domain);
	assert_true(found.bytes == made.bytes && found.kind == made.kind && found.tpm == made.tpm &&
		    found.latency_ns == made.latency_ns);
	snprintf(path, sizeof path, "%s/identity.json", folder);
	unlink(path);
	assert_int_equal(rmdir(folder), 0);
	assert_int_not_equal(identity_save(folder, &made), SECPOOL_OK);
}

/* Which program is its TPM. */
static void other_tpm(void **state)
{
	static const struct {
		const char *member;
		enum secpool_error error;
		enum identity_tpm tpm;
	} cases[] = {
		{"", SECPOOL_OK, IDENTITY_TPM_SECPOOL},
		{",\"tpm\":\"secpool-vtpm\"", SECPOOL_OK, IDENTITY_TPM_SECPOOL},
		{",\"tpm\":\"swtpm\"", SECPOOL_OK, IDENTITY_TPM_SWTPM},
		{",\"tpm\":\"sh\"", SECPOOL_E_UNSUPPORTED, IDENTITY_TPM_SECPOOL},
		{",\"tpm\":\"\"", SECPOOL_E_INVALID, IDENTITY_TPM_SECPOOL},
		{",\"tpm\":1", SECPOOL_E_INVALID, IDENTITY_TPM_SECPOOL},
	};
	char text[1024];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct identity identity;

		snprintf(text, sizeof text, "%.*s%s}", (int)(strlen(GOOD) - 1), GOOD,
			cases[i].member);
		assert_int_equal(parse(text, &identity), cases[i].error);
		if (cases[i].error)
			assert_non_null(strstr(err_detail(), "tpm"));
		else
			assert_int_equal(identity.tpm, cases[i].tpm);
	}
}

static void odd_documents(void **state)
{
	static const char *const texts[] = {"", " ", "null", "1", "[]", "\"x\"", "{}",
		"[[[[[[[[]]]]]]]]", "\xff\xfe{}", "{\"id\":\"\xc3\"}"};
	char long_text[IDENTITY_FILE_BYTES_MOST + 2];
	struct identity identity;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_int_equal(parse(texts[i], &identity), SECPOOL_E_INVALID);
	/* a NUL inside the file */
	assert_int_equal(identity_parse(GOOD "\0x", sizeof GOOD + 1, "f.json", "dev0", &identity),
		SECPOOL_E_INVALID);
	memset(long_text, ' ', sizeof long_text);
	assert_int_equal(
		identity_parse(long_text, sizeof long_text - 1, "f.json", "dev0", &identity),
		SECPOOL_E_INVALID);
}

static void ids(void **state)
{
	static const char *const fine[] = {
		"a", "dev0", "A_b.c-9", "1234567890123456789012345678901"};
	static const char *const wrong[] = {"", ".", "..", ".x", "-x", "a/b", "a b", "a\n",
		"\xc3\xa4", "12345678901234567890123456789012"};

	(void)state;
	for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
		assert_true(identity_id_allowed(fine[i]));
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_false(identity_id_allowed(wrong[i]));
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void files(void **state)
{
	char folder[] = "/tmp/secpool-identity-XXXXXX", path[PATH_MAX], other[PATH_MAX];
	struct identity identity;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/identity.json", folder);
	snprintf(other, sizeof other, "%s/other", folder);
	assert_int_equal(identity_load(folder, "dev0", &identity), SECPOOL_E_NOT_FOUND);
	write_file(path, GOOD);
	assert_int_equal(identity_load(folder, "dev0", &identity), SECPOOL_OK);
	assert_string_equal(identity.id, "dev0");
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(symlink(other, path), 0); /* a link is not followed */
	assert_int_not_equal(identity_load(folder, "dev0", &identity), SECPOOL_OK);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0); /* nor is a pipe waited for */
	assert_int_equal(identity_load(folder, "dev0", &identity), SECPOOL_E_INVALID);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(identity_load(folder, "dev0", &identity), SECPOOL_E_INVALID);
	assert_int_equal(rmdir(path), 0);
	write_file(path, GOOD);
	assert_int_equal(truncate(path, IDENTITY_FILE_BYTES_MOST + 1), 0);
	assert_int_equal(identity_load(folder, "dev0", &identity), SECPOOL_E_LIMIT);
	assert_int_equal(os_remove_tree(folder), SECPOOL_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),
		cmocka_unit_test(latency),
		cmocka_unit_test(bad),
		cmocka_unit_test(other_kind),
		cmocka_unit_test(saved),
		cmocka_unit_test(other_tpm),
		cmocka_unit_test(odd_documents),
		cmocka_unit_test(ids),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
