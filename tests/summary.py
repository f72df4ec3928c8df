"""Adds up JUnit XML reports. summary.py STATUS FOLDER: exits 1 where a test failed, none ran, or STATUS is not 0."""
import pathlib
import sys
import xml.etree.ElementTree as ET

passed = failed = skipped = 0
for path in sorted(pathlib.Path(sys.argv[2]).glob("*.xml")):
    cases = list(ET.parse(path).getroot().iter("testcase"))
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            print(f"FAILED {path.stem}: {case.get('classname')}.{case.get('name')}")
        elif case.find("skipped") is not None or case.get("status") == "notrun" or case.get("result") == "skipped":
            skipped += 1
            print(f"skipped {path.stem}: {case.get('classname')}.{case.get('name')}")
        else:
            passed += 1
if int(sys.argv[1]) != 0 and failed == 0:
    failed = 1  # a step failed without a report: a build error, or a test that died
if skipped:
    print(f"{skipped} skipped, for the reasons that the runs above give")
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
