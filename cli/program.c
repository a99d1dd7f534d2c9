/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/program.h"

#include <elf.h>
#include <string.h>

_Static_assert((int)PROGRAM_HEAD_BYTES <= (int)PATH_MAX, "an interpreter's path fits");

/* execve(2), "Interpreter scripts": blanks, then the path up to a blank or the line's end. */
static enum program_kind look_at_script(
	const uint8_t *head, size_t bytes, char ret_interpreter[PATH_MAX])
{
	size_t at = 2, length = 0;

	while (at < bytes && (head[at] == ' ' || head[at] == '\t'))
		at++;
	while (at + length < bytes && !memchr(" \t\n", head[at + length], 4))
		length++;
	if (length == 0 || at + length == bytes || head[at + length] == '\0')
		return PROGRAM_OTHER;
	memcpy(ret_interpreter, head + at, length);
	ret_interpreter[length] = '\0';
	return PROGRAM_SCRIPT;
}

enum program_kind program_look(const uint8_t *head, size_t bytes, char ret_interpreter[PATH_MAX])
{
	Elf64_Ehdr elf;

	if (bytes >= 2 && head[0] == '#' && head[1] == '!')
		return look_at_script(head, bytes, ret_interpreter);
	if (bytes < sizeof elf)
		return PROGRAM_OTHER;
	memcpy(&elf, head, sizeof elf);
	if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
		elf.e_ident[EI_DATA] != ELFDATA2LSB || elf.e_machine != EM_X86_64 ||
		(elf.e_type != ET_EXEC && elf.e_type != ET_DYN) ||
		elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phoff > bytes ||
		elf.e_phnum > (bytes - elf.e_phoff) / sizeof(Elf64_Phdr))
		return PROGRAM_OTHER;
	for (unsigned i = 0; i < elf.e_phnum; i++) {
		Elf64_Phdr part;
		memcpy(&part, head + elf.e_phoff + i * sizeof part, sizeof part);
		if (part.p_type == PT_INTERP)
			return PROGRAM_DYNAMIC;
	}
	return PROGRAM_STATIC;
}
