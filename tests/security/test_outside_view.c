/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promise 1 of DESIGN.md section 2, from outside: a canary of plaintext and the bytes of each key are searched for in every media file, in
 * the memory of every other process, in the client's own ordinary memory (keys), in the client's core file and in what the daemons
 * leave when they abort; the keys also in all that is stored, and the wrapped one of a released region. Each search has a control that must find something. timeout: 240
 */
#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/keypage.h"
#include "enclave/pagecipher.h"
#include "keymgr/wraps.h"
#include "lib/base/os.h"
#include "tests/support/support.h"

enum { PAGE = 4096, REGION_PAGES = 4096, LOCAL_BYTES = 4 << 20, CANARY_BYTES = 64, KEYS_MOST = 8 };

/* What the client process shows its parent; no secret in clear. */
struct shared {
	struct support_needle canary, control;
	struct support_needle keys[KEYS_MOST];
	struct support_needle wrapped; /* the region's key as it is stored */
	_Atomic unsigned key_count;
	_Atomic int is_ready;
};
static struct shared *shared;

enum secpool_error __real_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret);

static void keep_masked(const uint8_t *key, size_t bytes)
{
	unsigned i = shared->key_count;

	SUPPORT_CHECK(i < KEYS_MOST);
	shared->keys[i].bytes = bytes;
	for (size_t at = 0; at < bytes; at++)
		shared->keys[i].masked[at] = key[at] ^ SUPPORT_MASK;
	shared->key_count = i + 1;
}

/* The library's own call (the linker's --wrap): the test learns the keys that this client was given. They are read from the key page in place. */
enum secpool_error __wrap_pagecipher_new(int key_fd, const struct pagecipher_binding *expect,
	unsigned workers, struct pagecipher **ret)
{
	void *page = mmap(NULL, KEYPAGE_BYTES, PROT_READ, MAP_SHARED, key_fd, 0);
	struct region_keys *keys =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	SUPPORT_CHECK(page != MAP_FAILED && keys != MAP_FAILED);
	SUPPORT_OK(keypage_get(page, expect, keys));
	/* halves too: a schedule begins with the raw half */
	keep_masked(keys->xts, sizeof keys->xts / 2);
	keep_masked(keys->xts + sizeof keys->xts / 2, sizeof keys->xts / 2);
	keep_masked(keys->tag, sizeof keys->tag);
	explicit_bzero(keys, sizeof *keys);
	munmap(keys, PAGE);
	munmap(page, KEYPAGE_BYTES);
	return __real_pagecipher_new(key_fd, expect, workers, ret);
}

/* One byte at a time: no copy of the canary is left in a register or on the stack. */
static void put_needle(volatile uint8_t *to, const struct support_needle *needle)
{
	for (size_t i = 0; i < needle->bytes; i++)
		to[i] = support_needle_byte(needle, i);
}

static int be_client(void *arg)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	struct secpool *pool = support_open("alpha", LOCAL_BYTES);
	struct secpool_region *region = support_region(pool, (size_t)REGION_PAGES * PAGE, 2);
	volatile uint8_t *memory = secpool_region_address(region);
	uint8_t *ordinary = malloc(PAGE);

	(void)arg;
	SUPPORT_CHECK(ordinary != NULL);
	put_needle(ordinary, &shared->control);
	for (size_t page = 0; page < REGION_PAGES; page++)
		put_needle(memory + page * PAGE + page % 1000, &shared->canary);
	SUPPORT_OK(secpool_flush(region));
	/* and once more through fills */
	for (size_t page = 0; page < REGION_PAGES; page += 3)
		SUPPORT_CHECK(memory[page * PAGE + page % 1000] ==
			      support_needle_byte(&shared->canary, 0));
	SUPPORT_CHECK(setrlimit(RLIMIT_CORE, &limit) == 0);
	shared->is_ready = 1;
	pause();
	return 1;
}

static bool client_is_ready(void *arg)
{
	(void)arg;
	return shared->is_ready;
}

static void search_media(void)
{
	for (int device = 0; device < 3; device++) {
		const char *path = support_path("devices/dev%d/media", device);
		SUPPORT_CHECK(support_count_file(&shared->canary, path) == 0);
		for (unsigned i = 0; i < shared->key_count; i++)
			SUPPORT_CHECK(support_count_file(&shared->keys[i], path) == 0);
	}
	printf("media: neither plaintext nor keys\n");
}

static const struct support_needle *sought;
static size_t found_below;
static unsigned files_below;

static int look_into(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)where;
	if (kind == FTW_F && S_ISREG(status->st_mode)) {
		found_below += support_count_file(sought, path);
		files_below++;
	}
	return 0;
}

/* In all files of the state folder: the directory and its log, the wrapped keys, the sealed root, the host's TPM. */
static size_t count_state(const struct support_needle *needle)
{
	static const char *const files[] = {
		"directory.db", "directory.db-wal", "wraps", "root.sealed", "signer.wrapped"};

	for (size_t f = 0; f < sizeof files / sizeof *files; f++)
		SUPPORT_CHECK(access(support_path("state/%s", files[f]), R_OK) == 0);
	sought = needle;
	found_below = files_below = 0;
	SUPPORT_CHECK(nftw(support_path("state"), look_into, 16, FTW_PHYS) == 0);
	/* host-tpm has files too */
	SUPPORT_CHECK(files_below > sizeof files / sizeof *files);
	return found_below;
}

/* The client's region has its wrapped key in the one slot of a new file. */
static void learn_wrapped(void)
{
	uint8_t slot[KEYFILE_SLOT_BYTES];
	FILE *file = fopen(support_path("state/wraps"), "re");
	size_t bytes;

	SUPPORT_CHECK(file && fread(slot, sizeof slot, 1, file) == 1);
	fclose(file);
	bytes = slot[0] + 256u * slot[1];
	SUPPORT_CHECK(bytes >= 96 && bytes <= KEYFILE_SLOT_USED_MOST && !slot[2] && !slot[3]);
	shared->wrapped.bytes =
		bytes < sizeof shared->wrapped.masked ? bytes : sizeof shared->wrapped.masked;
	for (size_t i = 0; i < shared->wrapped.bytes; i++)
		shared->wrapped.masked[i] = slot[KEYFILE_SLOT_HEAD_BYTES + i] ^ SUPPORT_MASK;
}

static void search_state(void)
{
	for (unsigned i = 0; i < shared->key_count; i++)
		SUPPORT_CHECK(count_state(&shared->keys[i]) == 0);
	/* the control, and the only place that has it */
	learn_wrapped();
	SUPPORT_CHECK(support_count_file(&shared->wrapped, support_path("state/wraps")) == 1);
	SUPPORT_CHECK(count_state(&shared->wrapped) == 1);
	printf("state: no keys, the wrapped one in its slot alone\n");
}

static void search_processes(pid_t client)
{
	size_t seen, read_bytes;

	seen = support_count_process(&shared->canary, client, &read_bytes);
	printf("the client: %zu canaries in %zu MiB\n", seen, read_bytes >> 20);
	/* the control: resident pages are plaintext, and bounded */
	SUPPORT_CHECK(seen > 0 && seen <= LOCAL_BYTES / PAGE + 64);
	SUPPORT_CHECK(support_count_process(&shared->control, client, NULL) >= 1);
	SUPPORT_CHECK(support_count_others(&shared->canary, &client, 1) == 0);
	/* keys: not even in the client's ordinary memory */
	for (unsigned i = 0; i < shared->key_count; i++)
		SUPPORT_CHECK(support_count_others(&shared->keys[i], NULL, 0) == 0);
	printf("processes: no plaintext in others, no keys anywhere\n");
}

/* The core file in the working folder ("core" or "core.PID"); "" when there is none. */
static const char *find_core(const char *folder)
{
	static char path[PATH_MAX];
	DIR *dir = opendir(folder);
	struct dirent *entry;

	*path = '\0';
	while (dir && (entry = readdir(dir)))
		if (strncmp(entry->d_name, "core", 4) == 0 &&
			(!entry->d_name[4] || entry->d_name[4] == '.'))
			snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
	if (dir)
		closedir(dir);
	return path;
}

static void search_core(pid_t client, const char *folder)
{
	char gcore[] = "/usr/bin/gcore", option[] = "-o", prefix[PATH_MAX + 8], pid[16], text[4096];
	char *argv[] = {gcore, option, prefix, pid, NULL};
	int status;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* terabytes of shadow memory would be written; the plain build looks at cores */
	printf("cores: left out under a sanitizer\n");
	SUPPORT_CHECK(kill(client, SIGKILL) == 0);
	SUPPORT_CHECK(waitpid(client, &status, 0) == client);
	return;
#endif
	/* a debugger's core first, which honours what is left out */
	snprintf(prefix, sizeof prefix, "%s/core", folder);
	snprintf(pid, sizeof pid, "%d", client);
	SUPPORT_CHECK(access(gcore, X_OK) == 0);
	for (int by_kernel = 0; by_kernel < 2; by_kernel++) {
		if (by_kernel) {
			SUPPORT_CHECK(kill(client, SIGABRT) == 0);
			SUPPORT_CHECK(waitpid(client, &status, 0) == client);
			SUPPORT_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
			if (!WCOREDUMP(status)) {
				printf("the kernel wrote no core here\n");
				return;
			}
		} else if (support_run(text, sizeof text, argv) != 0) {
			support_fail("gcore: %s", text);
		}
		const char *core = find_core(folder);
		if (!*core && by_kernel) {
			printf("the kernel's core went elsewhere (core_pattern)\n");
			return;
		}
		SUPPORT_CHECK(*core);
		SUPPORT_CHECK(support_count_file(&shared->control, core) >= 1);
		SUPPORT_CHECK(support_count_file(&shared->canary, core) == 0);
		for (unsigned i = 0; i < shared->key_count; i++)
			SUPPORT_CHECK(support_count_file(&shared->keys[i], core) == 0);
		SUPPORT_CHECK(unlink(core) == 0);
		printf("core by %s: neither plaintext nor keys\n",
			by_kernel ? "the kernel" : "gcore");
	}
}

/* A child process of this one; 0 when there is none. */
static pid_t child_of(pid_t parent)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t child = 0;

	while (proc && !child && (entry = readdir(proc))) {
		char path[300], text[512] = "", *end;
		int ppid = 0;
		FILE *file;

		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		file = fopen(path, "re");
		if (file && fgets(text, sizeof text, file) && (end = strrchr(text, ')')) &&
			sscanf(end + 2, "%*c %d", &ppid) == 1 && ppid == parent)
			child = (pid_t)strtol(entry->d_name, NULL, 10);
		if (file)
			fclose(file);
	}
	if (proc)
		closedir(proc);
	return child;
}

/* Whether the kernel writes cores into the working folder of who dies; else the reason why nothing can be said. */
static bool cores_come_here(char *reason, size_t bytes)
{
	char pattern[256] = "";
	FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");

	if (file && !fgets(pattern, sizeof pattern, file))
		*pattern = '\0';
	if (file)
		fclose(file);
	pattern[strcspn(pattern, "\n")] = '\0';
	snprintf(reason, bytes, "core_pattern is '%s': cores don't come where they are looked for",
		pattern);
	return strcmp(pattern, "core") == 0 || strcmp(pattern, "core.%p") == 0;
}

static int abort_here(void *arg)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	SUPPORT_CHECK(chdir(arg) == 0 && setrlimit(RLIMIT_CORE, &limit) == 0);
	SUPPORT_CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	abort();
}

static bool has_ended(void *arg)
{
	return !os_process_alive(arg);
}

/* It aborts in a folder where another's core is found, with a limit that allows one. */
static void abort_one(const char *name, pid_t pid)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	struct os_process process;
	char link[64], folder[PATH_MAX];
	ssize_t got;

	if (pid <= 0)
		support_fail("there is no %s", name);
	SUPPORT_OK(os_process_find(pid, &process));
	snprintf(link, sizeof link, "/proc/%d/cwd", pid);
	got = readlink(link, folder, sizeof folder - 1);
	SUPPORT_CHECK(got > 0);
	folder[got] = '\0';
	SUPPORT_CHECK(!*find_core(folder));
	SUPPORT_CHECK(support_join(support_fork(abort_here, folder), 20000) == 128 + SIGABRT);
	if (!*find_core(folder))
		support_fail("the control left no core in %s: nothing is shown", folder);
	SUPPORT_CHECK(unlink(find_core(folder)) == 0);
	/* it has set its limit to 0; where that can be lifted, the core must still not come */
	if (prlimit(pid, RLIMIT_CORE, &limit, NULL) != 0)
		printf("%s: its limit for cores can't be lifted\n", name);
	SUPPORT_CHECK(kill(pid, SIGABRT) == 0);
	if (!support_wait(has_ended, &process, 10000))
		support_fail("%s did not end by SIGABRT", name);
	if (*find_core(folder))
		support_fail("%s left a core: %s", name, find_core(folder));
	printf("%s: no core\n", name);
}

static bool daemon_is_gone(void *arg)
{
	(void)arg;
	return support_daemon("keymgrd") == 0;
}

/* Each process that holds, or held, keys or plaintext of requests; those that end with it are started again. */
static void abort_daemons(void)
{
	pid_t guardian, enclave;

	abort_one("hotplugd", support_daemon("hotplugd"));
	guardian = child_of(support_daemon("keymgrd"));
	enclave = child_of(guardian);
	abort_one("verifier", child_of(enclave));
	abort_one("enclave", enclave);
	support_wait(daemon_is_gone, NULL, 10000);
	support_up(3, "64M", NULL);
	abort_one("guardian", child_of(support_daemon("keymgrd")));
	support_wait(daemon_is_gone, NULL, 10000);
	support_up(3, "64M", NULL);
	abort_one("keymgrd", support_daemon("keymgrd"));
}

int main(void)
{
	char folder[PATH_MAX], reason[400];
	pid_t client;
	bool cores;

	snprintf(folder, sizeof folder, "%s/outside.XXXXXX",
		getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	SUPPORT_CHECK(mkdtemp(folder) && chdir(folder) == 0);
	shared = mmap(
		NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(shared != MAP_FAILED);
	support_up(3, "64M", NULL);
	support_needle_random(&shared->canary, CANARY_BYTES);
	support_needle_random(&shared->control, CANARY_BYTES);
	client = support_fork(be_client, NULL);
	if (!support_wait(client_is_ready, NULL, 60000))
		support_fail("the client did not get ready");
	SUPPORT_CHECK(shared->key_count >= 3);
	search_media();
	search_state();
	search_processes(client);
	search_core(client, folder);
	support_wait_regions(0, 20000);
	search_media();
	/* released: its wrapped key is nowhere, not in a log or a free page either */
	SUPPORT_CHECK(count_state(&shared->wrapped) == 0);
	cores = cores_come_here(reason, sizeof reason);
	if (cores)
		abort_daemons();
	support_down();
	SUPPORT_CHECK(chdir("/") == 0 && rmdir(folder) == 0);
	if (!cores)
		support_skip("all but the daemons' cores passed: %s", reason);
	return 0;
}
