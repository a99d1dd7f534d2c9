/* SPDX-License-Identifier: Apache-2.0 */
/* cli/program.c: programs, scripts, and what is neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <elf.h>
#include <string.h>

#include "cli/program.h"

static struct {
	Elf64_Ehdr elf;
	Elf64_Phdr parts[3];
} program;
static char interpreter[PATH_MAX];

static void make(void)
{
	memset(&program, 0, sizeof program);
	memcpy(program.elf.e_ident, ELFMAG, SELFMAG);
	program.elf.e_ident[EI_CLASS] = ELFCLASS64;
	program.elf.e_ident[EI_DATA] = ELFDATA2LSB;
	program.elf.e_machine = EM_X86_64;
	program.elf.e_type = ET_DYN;
	program.elf.e_phoff = sizeof program.elf;
	program.elf.e_phentsize = sizeof *program.parts;
	program.elf.e_phnum = 3;
	for (unsigned i = 0; i < 3; i++)
		program.parts[i].p_type = PT_LOAD;
	program.parts[2].p_type = PT_INTERP;
}

static enum program_kind look(size_t bytes)
{
	return program_look((const uint8_t *)&program, bytes, interpreter);
}

static void test_programs(void **state)
{
	(void)state;
	make();
	assert_int_equal(look(sizeof program), PROGRAM_DYNAMIC);
	program.elf.e_type = ET_EXEC;
	assert_int_equal(look(sizeof program), PROGRAM_DYNAMIC);
	program.parts[2].p_type = PT_LOAD;
	assert_int_equal(look(sizeof program), PROGRAM_STATIC);
	program.elf.e_phnum = 0;
	assert_int_equal(look(sizeof program), PROGRAM_STATIC);
}

/* Each field that must be as it is, and each length that is too short. */
static void test_what_is_no_program(void **state)
{
	(void)state;
	for (size_t bytes = 0; bytes < sizeof program; bytes++) {
		make();
		assert_int_equal(look(bytes), PROGRAM_OTHER);
	}
	for (unsigned i = 0; i < SELFMAG; i++) {
		make();
		program.elf.e_ident[i] ^= 1;
		assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	}
	make();
	program.elf.e_ident[EI_CLASS] = ELFCLASS32;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	make();
	program.elf.e_machine = EM_AARCH64;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	make();
	program.elf.e_type = ET_CORE;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	make();
	program.elf.e_phentsize--;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	make();
	program.elf.e_phoff = UINT64_MAX - 8;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
	make();
	program.elf.e_phnum = UINT16_MAX;
	assert_int_equal(look(sizeof program), PROGRAM_OTHER);
}

static enum program_kind look_at(const char *text, size_t bytes)
{
	memset(interpreter, 'x', sizeof interpreter);
	return program_look((const uint8_t *)text, bytes, interpreter);
}

static void test_scripts(void **state)
{
	static const char long_line[PROGRAM_HEAD_BYTES] = "#!/bin/sh";

	(void)state;
	assert_int_equal(look_at("#!/bin/sh\n", 10), PROGRAM_SCRIPT);
	assert_string_equal(interpreter, "/bin/sh");
	assert_int_equal(look_at("#! \t/usr/bin/env -S x\n", 22), PROGRAM_SCRIPT);
	assert_string_equal(interpreter, "/usr/bin/env");
	assert_int_equal(look_at("#!", 2), PROGRAM_OTHER);
	assert_int_equal(look_at("#!  ", 4), PROGRAM_OTHER);
	assert_int_equal(look_at("#!\nx", 4), PROGRAM_OTHER);
	assert_int_equal(look_at("#!/bin/sh", 9), PROGRAM_OTHER); /* it may go on beyond */
	assert_int_equal(look_at(long_line, sizeof long_line), PROGRAM_OTHER);
	assert_int_equal(look_at("text\n", 5), PROGRAM_OTHER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_what_is_no_program),
		cmocka_unit_test(test_scripts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
