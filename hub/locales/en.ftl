# The words of the pages. This file and id.ftl must have the same keys (a test checks it).

# states
state-up = working
state-degraded = degraded
state-down = down
state-unknown = unknown
state-maintenance = maintenance
state-never = never ran

# time
unit-second = s
unit-minute = min
unit-hour = h
unit-day = day
unit-days-many = days
unit-days = { $n ->
    [one] { $n } day
   *[other] { $n } days
 }
yesterday-at = yesterday { $time }
month-1 = January
month-2 = February
month-3 = March
month-4 = April
month-5 = May
month-6 = June
month-7 = July
month-8 = August
month-9 = September
month-10 = October
month-11 = November
month-12 = December
month-short-1 = Jan
month-short-2 = Feb
month-short-3 = Mar
month-short-4 = Apr
month-short-5 = May
month-short-6 = Jun
month-short-7 = Jul
month-short-8 = Aug
month-short-9 = Sep
month-short-10 = Oct
month-short-11 = Nov
month-short-12 = Dec
weekday-1 = Monday
weekday-2 = Tuesday
weekday-3 = Wednesday
weekday-4 = Thursday
weekday-5 = Friday
weekday-6 = Saturday
weekday-7 = Sunday
since = since { $time }
since-label = Since
age = age
today = today
as-of = as of { $time }

# frame
skip = Skip to content
menu = Main menu
menu-overview = Overview
menu-sites = Sites
menu-attendance = Attendance today
menu-attendance-short = Attendance
to-overview = to the overview
logout = Log out
language = Language
theme = Switch between light and dark
role-operator = Operator
role-agency = Agency user
fresh = data { "{" }age{ "}" } ago
fresh-none = waiting for data
fresh-lost = no news
lost-band = This page has had no news since { "{" }time{ "}" }. Everything on it is old; the clock still runs.
printed = Printed { $time }
foot-zone = All times in { $zone }
foot-nothing-outside = This page loads nothing from outside the county's network
crumbs = Breadcrumbs

# login
login = Log in
login-where = Command center of Soppeng county
login-name = User name
login-password = Password
login-forgot = Forgotten the password? The SCC administrator makes a new one once they recognise you. Not by e-mail.
login-foot = Every login is recorded. This page loads nothing from outside the county's network.
login-wrong = User name or password do not match. Check capital letters, then try again.
login-wait = { $n ->
    [one] Too many tries. Try again in { $n } minute.
   *[other] Too many tries. Try again in { $n } minutes.
 }
login-hub-full = The hub's database disk is full, so nobody can log in yet; your name and password are right. Data stays in the boxes at the sites. Tell the administrator.
login-hub-broken = The hub cannot write to its database, so nobody can log in yet; your name and password are right. Tell the administrator.
login-old-form = This page has been open for too long. Please fill it in once more.

# pages that are only a note
not-found-title = Page not found
not-found-text = This address does not exist, or it is not for your user.
forged-title = Form not accepted
forged-text = This form is not from your present session. Go back, reload the page, and try again.
bad-request-title = Request not understood
bad-request-text = Check the address or what you filled in, then try again.
broken-title = The page could not be loaded
broken-text = Receiving data from the sites is not affected. Try again, or tell the administrator this code.
broken-intake-title = The hub has stopped receiving
broken-intake-text = The hub is being started again. Data stays in the boxes at the sites and is sent again. Try again in a moment, or tell the administrator this code.
broken-database-title = The hub cannot store new data
broken-database-text = The hub's database cannot store at the moment, and this page could not be loaded. Data stays in the boxes at the sites and follows later. Tell the administrator this and the code.
broken-missing-title = The page could not be loaded
broken-missing-text = The hub's database has lost part of what it held. Tell the administrator this and the code.
broken-record-title = The page could not be loaded
broken-record-text = Some data from a site cannot be stored at the hub yet and waits in its box. Tell the administrator this and the code.
broken-media-title = The page could not be loaded
broken-media-text = The hub's picture disk is full or failing. Punches and events are still received; pictures follow later. Tell the administrator this and the code.
broken-slow-title = The page could not be loaded
broken-slow-text = The hub is slow at storing data; nothing is lost. Try again in a moment, or tell the administrator this code.
technical = technical details
error-code = Code { $code }

# overview
sentence-empty = The register is still empty.
sentence-empty-hint = An administrator applies the register with: scc-hub fleet apply fleet.toml. Agency users see the sites of their own agency only.
sentence-waiting = { $n ->
    [one] { $n } thing needs action.
   *[other] { $n } things need action.
 }
sentence-never = { $n ->
    [one] { $n } site never ran.
   *[other] { $n } sites never ran.
 }
sentence-unknown = { $n ->
    [one] The state of 1 site is not known yet.
   *[other] The state of { $n } sites is not known yet.
}
sentence-rest = The rest is running.
sentence-calm = Nothing is waiting for action.
calm-what = What is unknown or under maintenance is in the table below.
needs-action = Needs action
needs-action-order = worst and newest first
maintenance-not-counted = { $n } under maintenance not counted
state-now = State now
cameras-working = Cameras working
terminals-working = Attendance machines working
sites-working = Sites working
unlisted = not registered { $n }
punches-today = Punches today
terminals-read = { $read } of { $of } machines read
sites-never = { $n ->
    [one] { $n } site never ran
   *[other] { $n } sites never ran
 }
sites-never-what = Registered, but nothing has ever arrived. Install and start the agent at the site.
item-link = { $site } · link
item-link-what = No news from the agent. Cameras and attendance machines there are unknown, not down.
item-box = { $site } · agent box
lead-down = Down.
lead-degraded = Degraded:
lead-never = Never ran.
lead-incomplete = Read in part:
last-heard-at = last heard { $time }
last-good-at = last good { $time }
declared-since = Registered since { $date }.
camera-named = camera { $name }
terminal-named = machine { $name }

# the hub itself
hub-trouble = Trouble at the hub
hub-intake = The hub has stopped receiving
hub-intake-what = The hub is being started again. Data stays in the boxes at the sites and is sent again; nothing is lost.
hub-intake-remedy = If this lasts longer than a minute, look at the service scc-hub.service on the hub's machine.
hub-database = The hub cannot store new data
hub-database-what = Numbers and pictures on this page stopped at that moment. Data stays in the boxes at the sites and follows later; nothing is lost, and this counts against no site.
hub-database-remedy = Check the room and the health of the database's disk on the hub's machine.
hub-database-remedy-locked = Another program on the hub's machine holds the database (sqlite3, a backup tool): close it; receiving goes on by itself.
hub-database-remedy-full = Make room on the database's disk on the hub's machine; receiving goes on by itself.
hub-database-remedy-failing = The database's disk on the hub's machine fails or cannot be written: look at the disk (journalctl -k). Once it is well, receiving goes on by itself.
hub-database-remedy-damaged = The database is damaged: restore the last backup (operators' guide, section 8). What came after it is sent again by the boxes at the sites.
hub-record = Some data cannot be stored yet
hub-record-what = The hub's database refuses part of what was sent. What is refused stays in the box at its site and is sent again; nothing is lost, and everything else is still received.
hub-record-remedy = This is a defect of the program: pass the technical details below on to the developers. Do not clear the box at the site.
hub-media = Pictures and video are held back
hub-media-what = The hub's picture disk is full or failing. Punches and events are still received; pictures wait in the boxes at the sites and follow later.
hub-media-remedy = Make room on the hub's picture disk; receiving goes on by itself.
hub-media-remedy-full = Make room on the hub's picture disk; receiving goes on by itself. The only thing that may be deleted by hand is what is in the folder aside/ of the media folder (files without a record); copy what is still needed first.
hub-missing = Data is missing at the hub
hub-missing-what = The boxes' daily count is higher than what the database holds: data that had been received is no longer there. No site is to blame.
hub-missing-remedy = Sites and days are in the technical details. Leave the boxes on: what their cards still hold is asked for again when they next connect. Check the health of the hub's disk, and who has opened the database.
hub-slow = The hub is slow at storing data
hub-slow-what = Everything is received and nothing is lost, but what is new is shown late.
hub-slow-remedy = The database's disk on the hub's machine is slow: look at its health and at other programs that use it (a backup, copying).
hub-files = New certificate files at the hub cannot be used
hub-files-what = The old ones stay in use: sites and pages go on. What was to be renewed or revoked with the new files is not yet.
hub-files-remedy = The technical details name the file and what is wrong with it. Make it anew with scc-provision and copy certificate and key, or issuing level and list, once more; the hub reads them within seconds. Do not restart the hub before: it would not come up.
hub-ending = A certificate of the hub has to be replaced
hub-ending-what = It ends within 30 days or has ended; which one and when is in the technical details. When the hub's certificate has ended, boxes at the sites cannot connect (their data stays in them); when that of the pages has, browsers warn of them; when the revocation list has, everything goes on, but nobody has looked at who is to be kept out.
hub-ending-remedy = Issue it anew with scc-provision on the computer with the authority and copy the files to the hub's machine; no restart is needed.
hub-aside = There are pictures and video without a record
hub-aside-what = { $files } files ({ $size }) have no record in the database, as happens after a restore. The hub keeps them aside in { $folder } and removes them, the oldest first, from { $day } on.
hub-aside-remedy = Copy what is needed before that day; what is in each folder is in the technical details. What is not needed may be deleted from there at once; this notice then goes within a quarter of an hour.

# sites
all-sites = All sites
all-sites-order = Worst first. Unknown does not mean down.
site = Site
state = State
cameras = Cameras
terminals = Attendance machines
last-heard = Last heard
backlog = Backlog
working = working
do-first = What to do first
way = The cause, from power to hub
first-nothing = Nothing to do here
first-nothing-what = All registered devices are working and their data reaches the hub.
first-device = Do first: { $name }. { $todo }
first-read-again = Machine { $name } was read in part
first-read-again-what = The agent reads again by itself. Do not clear the machine's log and do not change its clock.
way-power = Power
way-link = Link
way-agent = Agent
way-device = Devices
way-source = Source application
way-hub = Hub
way-unseen = cannot be seen
way-power-weak = under-voltage since boot
way-power-good = voltage is good
way-power-unmeasured = not measured on this box
way-link-never = never connected
way-link-down = broken since { $time }
way-link-up = connected since { $time }
way-link-slow = connected since { $time }, slow
way-link-away = away for a moment since { $time }
way-agent-version = version { $version }
way-agent-uptime = up { $span }
way-devices = { $up } of { $of } working
way-source-none = not used here
way-hub-up = receiving
way-hub-intake = has stopped receiving
way-hub-database = cannot store
way-hub-record = part not stored yet
way-hub-media = pictures held back
way-hub-missing = has lost data
way-hub-slow = slow at storing
no-picture-yet = Has never sent a picture
taken-at = taken { $time }
stale-at = old · { $time }
every = every { $n } s
receipt = Delivery receipt
receipt-caption = Number of records
receipt-running = Stored: taken and arrived since 00:00 today. Queued: in the box now, of whatever day. Gap: lost since 00:00, with the reason. Duplicates: arrived again since 00:00, stored once. Taken is the sum of stored, queued and gap.
receipt-told = The box last reported its newest record number at { $time }.
receipt-untold = Since 00:00 the box has not reported its newest record number; it may hold records that are not counted here.
receipt-counted = Taken: the box's own count of that day, hour by hour. Stored, queued and gaps: what has become of each of these records by now. Duplicates: arrived again that day, stored once.
receipt-equal = The counts of box and hub agree.
receipt-seen = The box has not reported its count of that day. Stored: taken that day and arrived within 31 days. Gaps: lost that day. Duplicates: arrived again that day, stored once. What is queued is not known.
receipt-day = Other days
receipt-csv = Download CSV
receipt-other-day = Date
show = Show
missing = { $n ->
    [one] 1 record was once received by the hub and is no longer in its database. Tell an administrator.
   *[other] { $n } records were once received by the hub and are no longer in its database. Tell an administrator.
 }
stream = Stream
taken = Taken
stored = Stored
queued = Queued
gap = Gaps
duplicates = Duplicates
sum = Sum
gap-of = Gap of { $n } { $stream }
unreadable = { $n ->
    [one] { $n } record could not be read; it is stored as it came.
   *[other] { $n } records could not be read; they are stored as they came.
 }
receipt-corrected = { $n ->
    [one] The time of one record is corrected, because the box's clock was not confirmed when it was taken.
   *[other] The times of { $n } records are corrected, because the box's clock was not confirmed when they were taken.
 }
receipt-undated = { $n ->
    [one] Nobody knows when one record was taken; it counts on the day it arrived. See that the box gets NTP, or reaches the hub after it is switched on.
   *[other] Nobody knows when { $n } records were taken; they count on the day they arrived. See that the box gets NTP, or reaches the hub after it is switched on.
 }
conflicts = { $n ->
    [one] 1 record number is used by two different contents; both are kept. The box's card may have been copied or set back: tell an administrator.
   *[other] { $n } record numbers are used by two different contents; both are kept. The box's card may have been copied or set back: tell an administrator.
 }
stream-event = Events
stream-attendance = Attendance
stream-warehouse = Warehouse
stream-health = Health
stream-snapshot = Snapshots
stream-segment = Segments
gap-damaged = part of the card was damaged; cannot be fetched again.
gap-evicted-by-size = dropped by the box's limit on space.
gap-evicted-by-age = dropped by the box's limit on age.
gap-evicted-after-ack = once received by the hub, then dropped at the box.
gap-disk-full = the card was full; new records were refused.
gap-epoch-closed = an old buffer was closed; comes back if its card is found.
gap-other = another reason.
machine-hub = machine { $machine } / hub { $hub }
machine-hub-label = Machine / hub
read-complete-at = complete { $time }
read-partial-at = in part { $time }
read-not-since = not read since that day
read-not-today = not read today
clock-ahead = clock is ahead by { $span }
clock-behind = clock is behind by { $span }
clock-right = right
punches-people = { $n } punches, { $people } people
punches-none = No punch of today has reached the hub yet.
person = number { $number }
box = Agent box and backlog
link = Link
backlog-is = { $n } records, { $size }.
backlog-then = As it was before the link broke.
oldest-from = Oldest from { $time }.
disk = Card
memory = Memory
free-of = { $free } free of { $all }
load = Load
temperature = Temperature
box-clock = Box clock
clock-ntp = set by NTP
clock-hub = agrees with the hub
clock-unconfirmed = not confirmed
time-corrected = time corrected
time-corrected-why = The box's clock was not confirmed when this was taken; its time is reckoned from how long the box had been on.
time-unknown = time uncertain
time-unknown-why = The box's clock was not confirmed when this was taken, and nothing can correct it yet; this is the box's own time.
agent-version = Agent version
undeclared = Sends, not registered

# causes at a site
site-cause-never-sent = nothing has ever arrived
site-cause-link = link broken
site-cause-slow-link = slow link, acknowledgements are late
site-cause-power = the box's supply is too weak
site-cause-disk = the card is nearly full
site-cause-heat = the box is too hot
site-cause-device = a device is in trouble
site-cause-hub-starting = the hub has just started and waits for agents to come back
site-cause-agent-starting = the agent has just connected and is looking at its devices
site-remedy-never-sent = Install the agent, switch its box on, and run scc-agent doctor.
site-remedy-link = Check the box's power and the network at the site, then run scc-agent doctor.
site-remedy-slow-link = Check what else loads the network at the site.
site-remedy-power = Replace the box's adapter or power cable.
site-remedy-disk = Check the card; with a good link, room comes back by itself.
site-remedy-heat = Give the box air and keep it out of the sun.
site-remedy-device = Check the device at the site.
site-remedy-hub-starting = Wait half a minute.
site-remedy-agent-starting = Wait a minute.

# causes at a device: the sentence, then what to do first
cause-offline = No answer at its address.
cause-refused = Its address answers but refuses the connection.
cause-unresolved = Its name is not found on the network.
cause-unauthorized = User name or password were refused.
cause-stalled = Connected, but no new picture comes.
cause-no-video = Connected, but there is no video track that can be read.
cause-garbage = What it sends is not what it should be.
cause-crashed = Its reader program ended suddenly and was started again.
cause-silent = Its port is open, but the service says nothing.
cause-key-refused = The machine refused the comm key.
cause-busy = Another program is using the machine.
cause-incomplete = Not all of the machine's records have been read.
cause-unknown-format = Its records are of no known layout.
cause-encrypted = The machine speaks the encrypted dialect.
cause-clock-drift = Its clock is off by more than a minute.
cause-buffer-full = The box cannot store what it delivers.
cause-starting = The agent has only just begun to look.
cause-other = Another cause.
remedy-offline = Check the device's power, cable and IP address.
remedy-refused = Check the port number and the service on the device.
remedy-unresolved = Use an IP address in agent.toml or repair DNS.
remedy-unauthorized = Make name and password the same on the device and in the box.
remedy-stalled = Restart the device; if it happens again, check its network.
remedy-no-video = Choose an H.264 or H.265 stream in the camera's settings.
remedy-garbage = Make sure that the address is the right device's.
remedy-crashed = Nothing if it happened once; if it repeats, tell the administrator.
remedy-silent = Restart the attendance machine.
remedy-key-refused = Make the comm key the same on the machine and in the box.
remedy-busy = Close the other program that holds the machine.
remedy-incomplete = Do not clear the machine's log; the agent reads again by itself.
remedy-unknown-format = Send the output of scc-agent doctor and the machine's make, type and firmware version to the administrator.
remedy-encrypted = Switch the encrypted mode off in the machine's settings.
remedy-clock-drift = Set the device's clock; lateness is not judged yet.
remedy-buffer-full = Check the room on the box's card.
remedy-starting = Wait a minute.
remedy-other = Run scc-agent doctor at the site.

# attendance
attendance-none = No attendance machine is registered.
attendance-punches = { $n } punches today from { $read ->
    [one] 1 machine.
   *[other] { $read } machines.
 }
read-of = { $n } of { $of } machines complete
attendance-partial = { $n ->
    [one] { $n } machine was read in part.
   *[other] { $n } machines were read in part.
 }
attendance-unknown = { $n ->
    [one] { $n } machine has not been read: its people are unknown, not absent.
   *[other] { $n } machines have not been read: their people are unknown, not absent.
 }
attendance-rule = The time of a punch is the machine's; a slow link makes nobody late.
numbers-today = Today's numbers
read-complete = Machines read completely
read-partial = Machines read in part
read-unknown = Machines not read
board = Today's board by agency
board-order = Least certain first. Numbers change when machines have been read completely.
agency-terminal = Agency and machine
reading = Reading
punches = Punches
people = People
terminal-clock = Machine's clock
