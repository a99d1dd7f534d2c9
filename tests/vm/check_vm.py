#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_vm.py IMAGE FOLDER LEG...: secpool on CXL devices, in a guest with Debian 12's kernel. A line for each thing that was seen, "VM ok" at the end; what went wrong, and what the daemons logged, else.
Legs: removal (each way in which a device can go, under load), poison (a machine check), shared (two hosts on the same memory), newer (volatile memory, poison lists, sanitising; IMAGE is in the folder of newer.sh)."""
import contextlib
import json
import os
import re
import shutil
import sys
import time

from vm import DATA_AT, MIB, Failed, QemuDied, Vm

REGION_MIB = 16
MARKER = b"SECPOOL-VM-CANARY"
FIRMWARE = "BWFW_VERSION_00"  # of QEMU's devices
STARTED = time.monotonic()
ATTEMPTS = 3
IOMMU, IOMMU_STRICT = ("-device", "intel-iommu"), "intel_iommu=on iommu.strict=1"


def say(text):
    print(f"VM {time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def must(condition, text):
    if not condition:
        raise Failed(text)


class Pool:
    """The daemons and a program, in a guest."""

    def __init__(self, vm):
        self.vm = vm

    def set_up_memory(self, i, seconds=120):
        """Makes a devdax device of the memory in slot i as `secpool device list` says it: by the commands of its reason. One may fail when it is about a memdev of a moment ago."""
        row = f"secpool device list | grep '^cxl-{self.vm.serials[i]:x} '"
        end = time.monotonic() + seconds
        output = ""
        while True:
            listed = self.vm.run(row, check=False)[1]
            if re.search("discovered|attesting|online|quarantined", listed):
                return
            # labels from an earlier life bring the devdax device back by themselves
            advice = re.search(r"'(cxl create-region|ndctl create-namespace)( [^']*)'", listed)
            if advice:
                more = " -g 4096" if advice.group(1).startswith("cxl") else " --map mem"
                output = self.vm.run(advice.group(1) + advice.group(2) + more, check=False)[1]
            must(time.monotonic() < end, f"no devdax device in {seconds} s: {listed}: {output}")
            time.sleep(1)

    def start(self, thresholds="suspect_poison: 1"):
        """thresholds: a line of the policy's about devices."""
        vm = self.vm
        vm.run("mkdir -p /run/secpool /var/lib/secpool/devices; export SECPOOL_RUNTIME_DIR=/run/secpool")
        vm.run(f'sed "s/firmware: .*/firmware: [{FIRMWARE}]\\n  {thresholds}/" /secpool/default.yaml > /run/policy.yaml')
        vm.await_("ls /dev", "tpmrm0", 60)
        vm.run("secpool-keymgrd --runtime-dir /run/secpool --state-dir /var/lib/secpool --policy /run/policy.yaml --tpm device:/dev/tpmrm0 > /run/keymgrd.log 2>&1 &")
        vm.run("secpool-hotplugd --runtime-dir /run/secpool --devices /var/lib/secpool/devices --cxl > /run/hotplugd.log 2>&1 &")
        vm.await_("secpool device list", "cxl-", 60)

    def rows(self):
        """What the list says of the devices, by their slots."""
        rows = {row["id"]: row for row in json.loads(self.vm.run("secpool device list --json"))}
        return [rows[f"cxl-{serial:x}"] for serial in self.vm.serials]

    def await_state(self, i, state, seconds=120):
        self.vm.await_("secpool device list", rf"cxl-{self.vm.serials[i]:x} +{state} ", seconds)

    def await_free(self, i, mib, seconds=240):
        """So much of the device was scrubbed."""
        end = time.monotonic() + seconds
        while True:
            rows = self.rows()
            if (rows[i]["free_bytes"] or 0) >= mib << 20:
                return
            must(time.monotonic() < end, f"not {mib} MiB scrubbed in {seconds} s: {rows}")
            time.sleep(1)

    def start_program(self, mib, lanes):
        self.vm.run(f"rm -f /run/stop; program /run/stop {mib} {lanes} > /run/program.log 2>&1 &")
        must("FAILED" not in self.vm.await_("tail -n 1 /run/program.log", "ALIVE|FAILED.*|WRONG.*", 300).group(0), "the program did not start")

    def operations(self):
        found = self.vm.await_("tail -n 1 /run/program.log", r"(?:ALIVE|END) operations (\d+) lost (\d+)|.*FAILED.*|.*WRONG.*", 30)
        must(found.group(1), found.group(0))
        must(found.group(2) == "0", "pages are lost: " + found.group(0))
        return int(found.group(1))

    def await_progress(self, seconds=60):
        before = self.operations()
        end = time.monotonic() + seconds
        while self.operations() <= before + 100:
            must(time.monotonic() < end, "the program stands still")
            time.sleep(0.5)

    def await_whole(self, seconds=300):
        """Every region has all of its lanes, and nothing is left to rebuild."""
        end = time.monotonic() + seconds
        while True:
            regions = json.loads(self.vm.run("secpool region list --json"))
            if regions and all(r["live_lanes"] == r["lanes"] and r["rebuilt_bytes"] == r["rebuild_bytes"] for r in regions):
                return
            must(time.monotonic() < end, f"not rebuilt in {seconds} s: {regions}")
            time.sleep(1)

    def stop_program(self):
        self.vm.run("touch /run/stop")
        self.vm.await_("cat /run/program.log", "RELEASED", 240)
        must("END" in self.vm.run("cat /run/program.log"), "no END")

    def logs(self):
        for name in ("program", "keymgrd", "hotplugd"):
            print(f"---- {name}", self.vm.run(f"tail -n 40 /run/{name}.log", check=False)[1], sep="\n")
        print("---- kernel", self.vm.run("dmesg | tail -n 40", check=False)[1], sep="\n")
        print("---- devices", self.vm.run("secpool device list; secpool region list; secpool events | tail -n 30", check=False)[1], sep="\n")


def check_ciphertext(vm):
    """What the host, or another one, sees of the devices."""
    for path in vm.backing:
        written = 0
        with open(path, "rb") as file:
            file.seek(DATA_AT)
            while chunk := file.read(1 << 20):
                must(MARKER not in chunk, f"plaintext in {path}")
                written += sum(any(chunk[at:at + 4096]) for at in range(0, len(chunk), 4096))
        must(written * 4096 >= REGION_MIB << 20, f"only {written} pages in {path} were written")
    say("the backing files hold ciphertext, and no canary")


def remove_gracefully(vm, i):
    vm.unplug(i)


def remove_by_surprise(vm, i):
    vm.pull(i)


def remove_by_sysfs(vm, i):
    address = vm.run("for m in /sys/bus/cxl/devices/mem*; do [ $(($(cat $m/serial))) = " + str(vm.serials[i]) + " ] && basename $(dirname $(readlink -f $m)); done; true").split()[-1]
    vm.run(f"echo 1 > /sys/bus/pci/devices/{address}/remove")


def come_back(vm, i, removed_by):
    if removed_by is remove_by_sysfs:
        vm.pull(i)  # QEMU's card is in its slot still, and its decoders are set, so that a rescan would not find it in order
    time.sleep(2)  # pciehp takes the power away a second after a surprise, and QEMU would take a new card out with it
    vm.plug(i)
    # a region of a device that is gone keeps its addresses; cxl destroy-region can't remove it
    vm.run("for r in /sys/bus/cxl/devices/region*; do [ -e $r ] && [ -z \"$(cat $r/target0)\" ] && { echo 0 > $r/commit; echo ${r##*/} > $(dirname $(readlink -f $r))/delete_region; }; done; true")


@contextlib.contextmanager
def guest(folder, image, **options):
    """A booted guest with two devices, and its pool; what the daemons logged is shown when something failed in it."""
    vm = Vm(folder, image, devices=2, **options)
    pool = Pool(vm)
    try:
        vm.boot()
        yield vm, pool
    except Failed as error:
        if vm.died():
            raise QemuDied(f"QEMU ended by itself: {error}") from error
        pool.logs()
        raise
    finally:
        vm.stop()


def leg_removal(image, folder):
    with guest(folder, image, extra=IOMMU, append=IOMMU_STRICT) as (vm, pool):
        say("booted: " + vm.run("uname -r"))
        pool.start()
        say("keymgrd runs on /dev/tpmrm0, hotplugd sees both memdevs")
        for i in range(2):
            pool.set_up_memory(i)
        for i in range(2):
            pool.await_state(i, "online")
        for i in range(2):
            pool.await_free(i, 2 * REGION_MIB)
        say("both devices are online, and space on them is scrubbed")
        pool.start_program(REGION_MIB, 2)
        say(f"a program uses mirror:2, {pool.operations()} operations so far")
        check_ciphertext(vm)
        vm.await_("cut -d. -f1 /proc/uptime", r"^(1[2-9]|[2-9]\d|\d{3,})", 60)  # pciehp looks for the first time 10 s after boot
        for count, remove in enumerate((remove_gracefully, remove_by_surprise, remove_by_sysfs)):
            i = count % 2
            began = time.monotonic()
            remove(vm, i)
            pool.await_state(i, "lost", 60)
            gone = time.monotonic() - began
            pool.await_progress()
            say(f"{remove.__name__} of device {i}: lost after {gone:.1f} s, the program goes on")
            come_back(vm, i, remove)
            pool.set_up_memory(i)
            pool.await_state(i, "online", 180)
            pool.await_whole()
            pool.await_progress()
            say(f"device {i} is back: attested, scrubbed, rebuilt onto")
        pool.stop_program()
        say("every page was right: " + vm.run("grep END /run/program.log"))
        status, output = vm.run(f"secpool device retire cxl-{vm.serials[0]:x}", check=False)
        must(status == 1 and "Linux 6.6" in output, f"this kernel can't sanitise: {output}")


def leg_poison(image, folder):
    """An uncorrected error that another process meets: the kernel signals it to each process that maps the place."""
    # a CPU whose machine checks the kernel knows how to recover from; one, for it must be in user mode when it comes
    with guest(folder, image, cpu="max,vendor=GenuineIntel,family=6,model=85,stepping=7") as (vm, pool):
        pool.start()
        for i in range(2):
            pool.set_up_memory(i)
        for i in range(2):
            pool.await_state(i, "quarantined")
        must("strict IOMMU translation" in vm.run("secpool device list"), "no reason that names the IOMMU")
        vm.run("echo 'allow: {device_dma: true}' >> /run/policy.yaml; for p in $(pidof secpool-keymgrd); do grep -q runtime-dir /proc/$p/cmdline && kill -HUP $p; done; true")
        for i in range(2):
            pool.await_state(i, "online")
        say("devices that no IOMMU holds back are quarantined, until the policy allows it")
        for i in range(2):
            pool.await_free(i, 2 * REGION_MIB)
        pool.start_program(REGION_MIB, 2)
        dax = vm.run("cd /sys/bus/dax/devices; ls -d dax*").split()[0]
        resource = int(vm.run(f"cat /sys/bus/dax/devices/{dax}/resource"), 16)
        vm.run(f"busy /dev/{dax} 20 > /run/busy.log 2>&1 &")
        time.sleep(2)
        answer = vm.machine_check(resource)
        must(answer.get("return") == "", f"mce: {answer}")
        vm.await_("cat /run/busy.log", r"SIGBUS code 4", 60)
        vm.await_("dmesg", "Memory failure.*Recovered", 30)
        pool.await_progress()
        for name in ("keymgrd", "hotplugd"):
            vm.run(f"pidof secpool-{name}")
        say("a machine check on a page that the program has there: it and the daemons go on")
        pool.stop_program()
        say("every page was right: " + vm.run("grep END /run/program.log"))


def look_from(other, i, more=""):
    """What another host's kernel and program see of the device in slot i: pages that hold something, and those that hold the marker."""
    row = other.run(f"cd /sys/bus/dax/devices; for d in dax*; do echo $d $(($(cat $d/size) >> 20)); done").splitlines()[i].split()
    found = re.search(r"PAGES written (\d+) marked (\d+) spoiled (\d+)", other.run(f"neighbour /dev/{row[0]} {row[1]} {MARKER.decode()} {more}", 600))
    return [int(n) for n in found.groups()]


def leg_shared(image, folder):
    """Two hosts on the same memory: what one keeps there is ciphertext to the other, and what the other does to it is loss of that copy."""
    with guest(f"{folder}/a", image, extra=IOMMU, append=IOMMU_STRICT) as (vm, pool):
        pool.start()
        for i in range(2):
            pool.set_up_memory(i)
        for i in range(2):
            pool.await_state(i, "online")
        for i in range(2):
            pool.await_free(i, 2 * REGION_MIB)
        pool.start_program(REGION_MIB, 2)
        say(f"host A: a program uses mirror:2, {pool.operations()} operations so far")
        os.makedirs(f"{folder}/b", exist_ok=True)
        for i in range(2):
            shutil.copyfile(f"{folder}/a/lsa{i}.raw", f"{folder}/b/lsa{i}.raw")  # the labels: it finds the same namespaces
        with guest(f"{folder}/b", image, tpm=False, backing=vm.backing, serials=vm.serials) as (other, _):
            for i in range(2):
                decoder, memdev = other.run("cxl list -D -d root -m mem%d | sed -n 's/.*\"decoder\":\"\\([^\"]*\\)\".*/\\1/p'" % i).split()[0], f"mem{i}"
                other.run(f"cxl create-region -t pmem -m -d {decoder} -w 1 -g 4096 {memdev}")
            other.await_("ls /sys/bus/dax/devices | wc -w", "2", 60)
            for i in range(2):
                written, marked, _ = look_from(other, i)
                must(written * 4096 >= REGION_MIB << 20, f"host B sees only {written} pages of device {i}")
                must(marked == 0, f"host B sees plaintext on device {i}: {marked} pages")
            say("host B sees ciphertext, and no canary")
            _, _, spoiled = look_from(other, 0, "spoil")
            must(spoiled * 4096 >= REGION_MIB << 20, f"host B overwrote only {spoiled} pages")
            pool.await_progress()
            say(f"host B overwrote {spoiled} pages of one device: host A goes on")
        pool.stop_program()
        say("every page was right: " + vm.run("grep END /run/program.log"))
        must(int(re.search(r"END.* bad (\d+)", vm.run("cat /run/program.log")).group(1)) > 0, "host A met no bad page")


def make_volatile_region(vm, i):
    """Debian 12's `cxl create-region` makes persistent regions only, so by sysfs, as Documentation/ABI/testing/sysfs-bus-cxl says."""
    vm.run("cd /sys/bus/cxl/devices; for m in mem*; do [ $(($(cat $m/serial))) = " + str(vm.serials[i]) + " ] && M=$m; done; for e in endpoint*; do [ $(basename $(readlink -f $e/uport)) = $M ] && D=decoder${e#endpoint}.0; done; echo $D")
    bus = vm.run("basename $(dirname $(readlink -f $M)) | cut -d: -f2")  # the card's, one above its bridge's
    root = vm.run(f"for d in decoder0.*; do [ $(cat $d/target_list) = $((0x{bus} - 1)) ] && echo $d; done; true")
    size = 256 * MIB
    vm.run(f"R=$(cat {root}/create_ram_region) && echo $R > {root}/create_ram_region && echo ram > $D/mode && echo {size} > $D/dpa_size && cd $R && echo 4096 > interleave_granularity && echo 1 > interleave_ways && "
           f"echo {size} > size && echo $D > target0 && echo 1 > commit && echo $R > /sys/bus/cxl/drivers/cxl_region/bind; cd /")


def leg_newer(image, folder):
    """Volatile memory, poison lists and sanitising: QEMU 10 and Linux 6.12."""
    with guest(folder, image, extra=IOMMU, append=IOMMU_STRICT, cpu="max,hypervisor=off", qemu=f"{os.path.dirname(image)}/qemu", volatile=(1,)) as (vm, pool):
        say("booted: " + vm.run("uname -r"))
        pool.start("suspect_poison: 2")
        pool.set_up_memory(0)
        vm.await_("secpool device list", r"create-region -t ram", 60)
        make_volatile_region(vm, 1)
        advice = vm.await_("secpool device list", r"'(daxctl reconfigure-device [^']*)'", 60)
        vm.run(advice.group(1))
        for i in range(2):
            pool.await_state(i, "online")
        rows = pool.rows()
        must([rows[i]["volatile_bytes"] > 0 for i in range(2)] == [False, True], f"not one of them volatile: {rows}")
        must([rows[i]["poisoned_places"] for i in range(2)] == [0, 0], f"no empty poison lists: {rows}")
        for i in range(2):
            pool.await_free(i, 2 * REGION_MIB)
        pool.start_program(REGION_MIB, 2)
        say(f"a volatile and a persistent device are online; a program uses mirror:2 on both, {pool.operations()} operations so far")
        poison(vm, 1, 1)
        end = time.monotonic() + 120  # it is looked at once a minute
        while pool.rows()[1]["poisoned_places"] != 1:
            must(time.monotonic() < end, f"the list shows no poisoned place: {pool.rows()}")
            time.sleep(1)
        must(pool.rows()[1]["state"] == "online", "fewer places than the policy says make it suspect")
        poison(vm, 1, 2)
        pool.await_state(1, "suspect", 120)
        must("its poison list names 2 places" in vm.run("secpool device list"), "no reason that names the poison list")
        pool.await_progress()
        say("as many places on a device's poison list as the policy says: it is suspect, the program goes on")
        pool.stop_program()
        say("every page was right: " + vm.run("grep END /run/program.log"))
        retire(vm, 1)


def poison(vm, i, places):
    """Puts another place on the device's list, and has hotplugd look at it at once, not only at its next minute."""
    answer = vm.qmp("cxl-inject-poison", path=f"/machine/peripheral/t{i}", start=64 * MIB * places, length=64)
    must("error" not in answer, f"cxl-inject-poison: {answer}")
    vm.run("for m in /sys/bus/cxl/devices/mem*; do echo change > $m/uevent; done")


def retire(vm, i):
    """What an operator does before a device leaves the rack: it is emptied, and the card overwrites itself."""
    name = f"cxl-{vm.serials[i]:x}"
    status, output = vm.run(f"secpool device retire {name}", check=False)
    must(status == 1 and f"secpool device drain {name}" in output, f"a device that is not empty is retired: {output}")
    vm.run(f"secpool device drain {name}", 300)
    output = vm.run(f"secpool device retire {name}", 120)
    must("was sanitised by its own command" in output, f"retire: {output}")
    must(re.search(rf"{name} .*may be taken out", vm.run("secpool device list")), "no reason that says so")
    must(len(vm.run("ls /sys/bus/cxl/devices | grep ^region").split()) == 1, "its region is still there")
    with open(vm.backing[i], "rb") as file:
        must(not any(any(chunk) for chunk in iter(lambda: file.read(1 << 20), b"")), "the backing file holds data after the device was sanitised")
    say("the device was drained and sanitised: its backing file holds zeros")


LEGS = {"removal": leg_removal, "poison": leg_poison, "shared": leg_shared, "newer": leg_newer}


def run_leg(name, image, folder):
    """Whether it passed. One in which QEMU itself ended is begun anew."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            LEGS[name](image, folder)
            return True
        except QemuDied as error:
            print(f"VM {name}: {error}", flush=True)
        except Failed as error:
            print(f"VM FAILED {name}: {error}", flush=True)
            return False
    print(f"VM FAILED {name}: QEMU ended by itself in each of {ATTEMPTS} attempts", flush=True)
    return False


def main():
    image, folder = sys.argv[1:3]
    for name in sys.argv[3:]:
        if not run_leg(name, image, os.path.abspath(f"{folder}-{name}")):
            return 1
    print("VM ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
